/* Sending and receiving on non-blocking sockets, without letting go of the GIL where that costs more than it gives.
 *
 * Optional: without it direct.py calls the socket's own methods. Those let go of the GIL for every call. A thread that
 * waits for it then runs, and the caller gets it back when that one blocks, or after the switch interval (5 ms): beside
 * a thread that computes, that is 5 ms a call, whatever its size. A call that cannot block needs no such generosity: it
 * takes 5 to 20 us for small pieces and 100 to 300 us for 1 MiB, most of that in the kernel.
 *
 * So small pieces never let go. Larger ones do, for the sake of other threads on other processors, except for a while
 * after getting the GIL back took long.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

/* Up to here the GIL is kept, in bytes. */
#define SMALL (64 * 1024)

/* When getting the GIL back took longer than this, it is kept for so long from then on; in nanoseconds. One loss of
 * 5 ms every 100 ms is what looking again costs. */
#define LONG 1000000
#define KEPT_FOR 100000000

/* Until when it is kept. Read and written with the GIL or, where there is none, with whatever order the processors
 * choose: every value that was ever written is a sensible one. */
static int64_t kept_until = 0;

static int64_t
now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Return the descriptor of a socket; none of its own code may run in between, which could switch threads while another
 * one closes it. */
static int
descriptor(PyObject *sock)
{
    int fd = PyObject_AsFileDescriptor(sock);

    if (fd < 0 && PyErr_ExceptionMatches(PyExc_ValueError)) {
        PyErr_Clear(); /* -1: it is closed */
        errno = EBADF;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return fd;
}

static ssize_t
transfer(int fd, void *data, size_t size, int sending)
{
    ssize_t count;

    do {
        count = sending ? send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL) : recv(fd, data, size, MSG_DONTWAIT);
    } while (count < 0 && errno == EINTR); /* the interpreter looks for signals right behind this call */
    return count;
}

static PyObject *
call(PyObject *const *args, Py_ssize_t count, int sending)
{
    Py_buffer data;
    ssize_t moved;
    int fd, failure;

    if (count != 2) {
        PyErr_Format(PyExc_TypeError, "2 arguments are taken, not %zd", count);
        return NULL;
    }
    if ((fd = descriptor(args[0])) < 0) {
        return NULL;
    }
    if (PyObject_GetBuffer(args[1], &data, sending ? PyBUF_SIMPLE : PyBUF_WRITABLE) < 0) {
        return NULL;
    }
    if (data.len <= SMALL || now() < __atomic_load_n(&kept_until, __ATOMIC_RELAXED)) {
        moved = transfer(fd, data.buf, (size_t)data.len, sending);
        failure = errno;
    }
    else {
        int64_t done, back;
        Py_BEGIN_ALLOW_THREADS
        moved = transfer(fd, data.buf, (size_t)data.len, sending);
        failure = errno;
        done = now();
        Py_END_ALLOW_THREADS
        back = now();
        if (back - done > LONG) {
            __atomic_store_n(&kept_until, back + KEPT_FOR, __ATOMIC_RELAXED);
        }
    }
    PyBuffer_Release(&data);
    if (moved < 0) {
        errno = failure;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyLong_FromSsize_t(moved);
}

PyDoc_STRVAR(send_doc,
"send(sock, data, /)\n--\n\n"
"Send what the socket takes of data now; returns how many bytes. Raises OSError, BlockingIOError for none.");

static PyObject *
direct_send(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    return call(args, count, 1);
}

PyDoc_STRVAR(recv_into_doc,
"recv_into(sock, buffer, /)\n--\n\n"
"Receive what is there into buffer; returns how many bytes, 0 at the end. Raises OSError, BlockingIOError for none.");

static PyObject *
direct_recv_into(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    return call(args, count, 0);
}

static PyMethodDef methods[] = {
    {"send", (PyCFunction)(void (*)(void))direct_send, METH_FASTCALL, send_doc},
    {"recv_into", (PyCFunction)(void (*)(void))direct_recv_into, METH_FASTCALL, recv_into_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "iii_sync.net._direct",
    .m_doc = "System calls on sockets; see direct.py.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__direct(void)
{
    return PyModuleDef_Init(&definition);
}
