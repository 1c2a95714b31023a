/* A peer that is no bottleneck: takes or gives the bytes of WebSocket or raw TCP connections as fast as the sockets do.
 *
 *   fast_peer MODE FRAME SECONDS CONNECTIONS CHECK
 *
 * MODE         sink, source (WebSocket, with the handshake), rawsink, rawsource (plain TCP)
 * FRAME        bytes of a frame that a source sends, and how often its payload repeats
 * SECONDS      how long a source sends, from the line "go" on standard input; one frame goes out before
 * CONNECTIONS  how many are served, each by a thread; the program ends with the last
 * CHECK        1: compute the CRC-32 of the payload (slow: for verification only)
 *
 * Prints the port; then "ready" for each connection whose handshake is done; then a line for each that ended:
 * "end PAYLOAD MESSAGES FIRST LAST CRC CPU", times on the monotonic clock. Everything is flushed at once.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { WINDOW = 1 << 20 };

static int sending, raw, checking;
static size_t frame_size;
static double seconds;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t started = PTHREAD_COND_INITIALIZER;
static int going;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint32_t crc32_of(uint32_t crc, const uint8_t *data, size_t size) {
    crc = ~crc;
    while (size--) {
        crc ^= *data++;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0xEDB88320u & (0u - (crc & 1u)));
    }
    return ~crc;
}

/* --- the handshake: SHA-1 and base64, of the 60 bytes it takes ------------------------------------------------- */

static uint32_t rotate(uint32_t x, int n) { return x << n | x >> (32 - n); }

static void sha1(const uint8_t *data, size_t size, uint8_t out[20]) {
    uint32_t h[5] = {0x67452301u, 0xEFCDAB89u, 0x98BADCFEu, 0x10325476u, 0xC3D2E1F0u};
    uint8_t block[128] = {0};
    size_t padded = size + 9 <= 64 ? 64 : 128;
    memcpy(block, data, size);
    block[size] = 0x80;
    block[padded - 2] = (uint8_t)(size * 8 >> 8);
    block[padded - 1] = (uint8_t)(size * 8);
    for (size_t at = 0; at < padded; at += 64) {
        uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
        for (int i = 0; i < 16; i++) {
            const uint8_t *p = block + at + 4 * i;
            w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
        }
        for (int i = 16; i < 80; i++) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        for (int i = 0; i < 80; i++) {
            uint32_t f, k;
            if (i < 20) f = (b & c) | (~b & d), k = 0x5A827999u;
            else if (i < 40) f = b ^ c ^ d, k = 0x6ED9EBA1u;
            else if (i < 60) f = (b & c) | (b & d) | (c & d), k = 0x8F1BBCDCu;
            else f = b ^ c ^ d, k = 0xCA62C1D6u;
            uint32_t t = rotate(a, 5) + f + e + k + w[i];
            e = d, d = c, c = rotate(b, 30), b = a, a = t;
        }
        h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
    }
    for (int i = 0; i < 20; i++) out[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

static void base64_20(const uint8_t in[20], char out[29]) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t padded[21] = {0};
    memcpy(padded, in, 20);
    for (int i = 0; i < 7; i++) {
        uint32_t v = (uint32_t)padded[3 * i] << 16 | (uint32_t)padded[3 * i + 1] << 8 | padded[3 * i + 2];
        for (int j = 0; j < 4; j++) out[4 * i + j] = digits[v >> (18 - 6 * j) & 63];
    }
    out[27] = '=', out[28] = 0;
}

static int send_all(int fd, const uint8_t *data, size_t size) {
    while (size) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
        if (n <= 0) return -1;
        data += n, size -= (size_t)n;
    }
    return 0;
}

static int handshake(int fd) {
    static const char name[] = "sec-websocket-key:";
    char request[8192], key[128] = "", accept[29], answer[256];
    size_t size = 0;
    uint8_t digest[20];
    do { /* a byte at a time: what follows the request is not ours */
        if (size + 1 >= sizeof request || recv(fd, request + size, 1, 0) != 1) return -1;
        request[++size] = 0;
    } while (size < 4 || memcmp(request + size - 4, "\r\n\r\n", 4));
    for (char *line = request; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (!strncasecmp(line, name, sizeof name - 1)) sscanf(line + sizeof name - 1, " %60[^\r\n]", key);
    strcat(key, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    sha1((uint8_t *)key, strlen(key), digest);
    base64_20(digest, accept);
    int n = snprintf(answer, sizeof answer,
                     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Accept: %s\r\n\r\n", accept);
    return send_all(fd, (uint8_t *)answer, (size_t)n);
}

/* --- one connection -------------------------------------------------------------------------------------------- */

struct tally {
    uint64_t payload, messages;
    double first, last;
    uint32_t crc;
};

/* Reads frames without looking at payloads, unless they are to be checked; answers the Close. */
static void take(int fd, struct tally *t) {
    uint8_t *window = malloc(WINDOW), head[14], key[4] = {0};
    size_t have = 0, need = 2;
    uint64_t left = 0, at = 0;
    ssize_t size;
    while ((size = recv(fd, window, WINDOW, 0)) > 0) {
        double time = now();
        uint64_t before = t->payload;
        if (raw) {
            t->payload += (uint64_t)size;
            if (checking) t->crc = crc32_of(t->crc, window, (size_t)size);
        } else {
            uint8_t *p = window, *end = window + size;
            while (p < end) {
                if (left) {
                    size_t n = left < (uint64_t)(end - p) ? (size_t)left : (size_t)(end - p);
                    if (checking) {
                        for (size_t i = 0; i < n; i++) p[i] ^= key[(at + i) & 3];
                        t->crc = crc32_of(t->crc, p, n);
                    }
                    at += n, p += n, left -= n, t->payload += n;
                    continue;
                }
                head[have++] = *p++;
                if (have == 2) need = 2 + ((head[1] & 127) == 126 ? 2 : (head[1] & 127) == 127 ? 8 : 0) + (head[1] & 128 ? 4 : 0);
                if (have < 2 || have < need) continue;
                size_t width = (head[1] & 127) == 126 ? 2 : (head[1] & 127) == 127 ? 8 : 0;
                left = width ? 0 : head[1] & 127;
                for (size_t i = 0; i < width; i++) left = left << 8 | head[2 + i];
                memcpy(key, head + 2 + width, 4);
                have = 0, at = 0;
                if ((head[0] & 15) == 8) {
                    static const uint8_t closing[] = {0x88, 2, 3, 232};
                    send_all(fd, closing, sizeof closing);
                    shutdown(fd, SHUT_WR);
                    while (recv(fd, window, WINDOW, 0) > 0) {}
                    free(window);
                    return;
                }
                if (left) t->messages++;
            }
        }
        if (t->payload != before) {
            if (!t->first) t->first = time;
            t->last = now();
        }
    }
    free(window);
}

/* Sends frames of one payload over and over. */
static void give(int fd, struct tally *t) {
    size_t count = frame_size < WINDOW ? WINDOW / frame_size : 1, head = raw ? 0 : frame_size < 126 ? 2 : frame_size < 65536 ? 4 : 10;
    size_t one = head + frame_size;
    uint8_t *batch = malloc(one * count), *junk = malloc(65536);
    for (size_t i = 0; i < count; i++) {
        uint8_t *p = batch + i * one;
        if (!raw) {
            p[0] = 0x82, p[1] = (uint8_t)(head == 2 ? frame_size : head == 4 ? 126 : 127);
            for (size_t j = 2; j < head; j++) p[j] = (uint8_t)((uint64_t)frame_size >> 8 * (head - 1 - j));
        }
        for (size_t j = 0; j < frame_size; j++) p[head + j] = (uint8_t)(j * 31 + (j >> 8));
    }
    if (send_all(fd, batch, one)) return; /* so that the reader knows it is connected */
    t->payload += frame_size, t->messages++;
    pthread_mutex_lock(&lock);
    while (!going) pthread_cond_wait(&started, &lock);
    pthread_mutex_unlock(&lock);
    t->first = now();
    do {
        if (send_all(fd, batch, one * count)) break;
        t->payload += frame_size * count, t->messages += count;
        t->last = now();
    } while (t->last < t->first + seconds);
    if (!raw) {
        static const uint8_t closing[] = {0x88, 2, 3, 232};
        send_all(fd, closing, sizeof closing);
    }
    shutdown(fd, SHUT_WR);
    while (recv(fd, junk, 65536, 0) > 0) {}
    free(batch);
    free(junk);
}

static void *serve(void *argument) {
    int fd = (int)(intptr_t)argument, one = 1;
    struct tally t = {0};
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (raw || !handshake(fd)) {
        pthread_mutex_lock(&lock);
        puts("ready");
        pthread_mutex_unlock(&lock);
        (sending ? give : take)(fd, &t);
    }
    close(fd);
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    double cpu = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
    pthread_mutex_lock(&lock);
    printf("end %llu %llu %.9f %.9f %u %.6f\n", (unsigned long long)t.payload, (unsigned long long)t.messages, t.first, t.last,
           t.crc, cpu);
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void *await_go(void *unused) {
    (void)unused;
    int c;
    do {
        c = getchar();
    } while (c != '\n' && c != EOF);
    if (c == EOF) exit(1);
    pthread_mutex_lock(&lock);
    going = 1;
    pthread_cond_broadcast(&started);
    pthread_mutex_unlock(&lock);
    while (getchar() != EOF) {}
    exit(1); /* the parent has gone */
}

int main(int argc, char **argv) {
    if (argc != 6) return 2;
    sending = strstr(argv[1], "source") != NULL;
    raw = !strncmp(argv[1], "raw", 3);
    frame_size = strtoul(argv[2], NULL, 10);
    seconds = atof(argv[3]);
    int connections = atoi(argv[4]);
    checking = atoi(argv[5]);
    if (!frame_size || connections < 1) return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, 128)) return 1;
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    pthread_t *threads = calloc((size_t)connections, sizeof *threads), waiter;
    pthread_create(&waiter, NULL, await_go, NULL);
    for (int i = 0; i < connections; i++) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) return 1;
        pthread_create(&threads[i], NULL, serve, (void *)(intptr_t)fd);
    }
    for (int i = 0; i < connections; i++) pthread_join(threads[i], NULL);
    return 0;
}
