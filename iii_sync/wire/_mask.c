/* Masking of client frames (RFC 6455, 5.3): copy and XOR in one pass, of a piece or of what joins a growing frame.
 *
 * Optional: without it mask.py falls back to numpy or to big integers, and growing.py lets nothing join. Words go
 * through memcpy, so no address has to be aligned; the compiler makes vector instructions of the loop.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>
#ifndef MS_WINDOWS
#include <unistd.h>
#endif

/* The largest frame, 1 MiB, is masked in 20 to 100 us, and waking the thread that waits for the GIL takes 20 to 35 us.
 * Letting go of it from 512 KiB on was measured: no gain alone, nor with 2 or 64 threads that mask, and beside a thread
 * that computes nearly twice the processor time. So frames keep it; only larger pieces, which may come one day, do not. */
#define RELEASE_ABOVE (1024 * 1024)

static void
mask_bytes(unsigned char *target, const unsigned char *data, Py_ssize_t size, const unsigned char *mask, Py_ssize_t turn)
{
    unsigned char key[4];
    uint32_t word;
    uint64_t pad;
    Py_ssize_t i;

    for (i = 0; i < 4; i++) {
        key[i] = mask[(turn + i) & 3];
    }
    i = 0;
    memcpy(&word, key, 4);
    pad = ((uint64_t)word << 32) | word;
    for (; size - i >= 8; i += 8) {
        uint64_t piece;
        memcpy(&piece, data + i, 8);
        piece ^= pad;
        memcpy(target + i, &piece, 8);
    }
    for (; i < size; i++) {
        target[i] = data[i] ^ key[i & 3];
    }
}

PyDoc_STRVAR(mask_into_doc,
"mask_into(target, at, data, key, turn, /)\n--\n\n"
"Write data masked with the four bytes of key, beginning with byte turn % 4 of them, into target from at on.\n"
"It must fit, and target and data must not overlap.");

static PyObject *
mask_into(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    Py_buffer target, data, key;
    Py_ssize_t at, turn;
    PyObject *result = NULL;

    if (count != 5) {
        PyErr_Format(PyExc_TypeError, "mask_into() takes 5 arguments, not %zd", count);
        return NULL;
    }
    at = PyNumber_AsSsize_t(args[1], PyExc_OverflowError);
    if (at == -1 && PyErr_Occurred()) {
        return NULL;
    }
    turn = PyNumber_AsSsize_t(args[4], PyExc_OverflowError);
    if (turn == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (PyObject_GetBuffer(args[0], &target, PyBUF_WRITABLE) < 0) {
        return NULL;
    }
    if (PyObject_GetBuffer(args[2], &data, PyBUF_SIMPLE) < 0) {
        goto release_target;
    }
    if (PyObject_GetBuffer(args[3], &key, PyBUF_SIMPLE) < 0) {
        goto release_data;
    }
    if (key.len != 4) {
        PyErr_Format(PyExc_ValueError, "a mask has 4 bytes, not %zd", key.len);
    }
    else if (at < 0 || at > target.len || data.len > target.len - at) {
        PyErr_Format(PyExc_ValueError, "%zd bytes at %zd do not fit into %zd bytes", data.len, at, target.len);
    }
    else {
        unsigned char *place = (unsigned char *)target.buf + at;
        turn &= 3;
        if (data.len > RELEASE_ABOVE) {
            Py_BEGIN_ALLOW_THREADS
            mask_bytes(place, data.buf, data.len, key.buf, turn);
            Py_END_ALLOW_THREADS
        }
        else if (data.len > 0) {
            mask_bytes(place, data.buf, data.len, key.buf, turn);
        }
        result = Py_None;
        Py_INCREF(result);
    }
    PyBuffer_Release(&key);
release_data:
    PyBuffer_Release(&data);
release_target:
    PyBuffer_Release(&target);
    return result;
}

/* A frame that is growing, as far as any thread may add to it.
 *
 * Its owner opens it and shuts it again. In between join() is all that touches it, and every call is one step to all
 * other threads and to signal handlers: by the GIL, or by the lock that an object has where there is none. So whoever
 * joins needs no lock of his own, and is not interrupted with half of it done.
 */
#ifndef Py_BEGIN_CRITICAL_SECTION
#define Py_BEGIN_CRITICAL_SECTION(object) {
#define Py_END_CRITICAL_SECTION() }
#endif

typedef struct {
    PyObject_HEAD
    PyObject *clock;   /* called without arguments, returns seconds */
    double pause;      /* in seconds; nothing joins after a longer one */
    Py_buffer frame;   /* where it grows while it is open; its obj is NULL otherwise */
    Py_ssize_t at;     /* where its payload begins in there */
    Py_ssize_t used;   /* bytes of payload */
    Py_ssize_t limit;  /* how many they may become by joining */
    int64_t joined;    /* bytes that have ever joined */
    double last;       /* when the last of them did, or it was opened, by the clock */
    unsigned char key[4];
    int ended;         /* it is not opened any more */
#ifndef MS_WINDOWS
    pid_t process;     /* a forked child has a copy, from which nothing is ever sent */
#endif
} Growing;

static int
look_at_clock(Growing *self, double *now)
{
    PyObject *result = PyObject_CallNoArgs(self->clock);

    *now = result == NULL ? -1.0 : PyFloat_AsDouble(result);
    Py_XDECREF(result);
    return *now == -1.0 && PyErr_Occurred() ? -1 : 0;
}

static PyObject *
growing_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *clock;
    double pause;
    Growing *self;

    if (!PyArg_ParseTuple(args, "Od:Growing", &clock, &pause) || (self = (Growing *)type->tp_alloc(type, 0)) == NULL) {
        return NULL;
    }
    Py_INCREF(clock);
    self->clock = clock;
    self->pause = pause;
#ifndef MS_WINDOWS
    self->process = getpid();
#endif
    return (PyObject *)self;
}

static void
growing_dealloc(Growing *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyBuffer_Release(&self->frame);
    Py_XDECREF(self->clock);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

PyDoc_STRVAR(open_doc,
"open(frame, at, limit, key, /)\n--\n\n"
"Let data join what is in frame from at on, up to limit bytes, masked with the four bytes of key.\n"
"It must not be resized until it is shut. Nothing is opened after end().");

static PyObject *
growing_open(Growing *self, PyObject *args)
{
    Py_buffer frame, key;
    Py_ssize_t at, limit;
    PyObject *result = NULL;
    double now;

    if (!PyArg_ParseTuple(args, "w*nny*:open", &frame, &at, &limit, &key)) {
        return NULL;
    }
    if (key.len != 4) {
        PyErr_Format(PyExc_ValueError, "a mask has 4 bytes, not %zd", key.len);
        goto release;
    }
    if (look_at_clock(self, &now) < 0) {
        goto release;
    }
    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->frame.obj != NULL) {
        PyErr_SetString(PyExc_ValueError, "it is open already");
    }
    else if (at < 0 || at > frame.len || self->used > frame.len - at) {
        PyErr_Format(PyExc_ValueError, "%zd bytes at %zd do not fit into %zd", self->used, at, frame.len);
    }
    else {
        result = Py_None;
        Py_INCREF(result);
        if (!self->ended) {
            self->frame = frame;
            frame.obj = NULL; /* released when it is shut */
            self->at = at;
            self->limit = limit < self->frame.len - at ? limit : self->frame.len - at;
            self->last = now;
            memcpy(self->key, key.buf, 4);
        }
    }
    Py_END_CRITICAL_SECTION();
release:
    PyBuffer_Release(&key);
    PyBuffer_Release(&frame);
    return result;
}

PyDoc_STRVAR(join_doc,
"join(data, /)\n--\n\n"
"Add data to the frame; returns how many bytes, or 0 where that cannot be done now. Any thread; does not block.");

static PyObject *
growing_join(Growing *self, PyObject *data)
{
    Py_buffer piece;
    Py_ssize_t size = 0;
    double now;

    /* As a memoryview asks, so that the same data are taken as by whoever makes one of them. */
    if (PyObject_GetBuffer(data, &piece, PyBUF_FULL_RO) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_Exception)) {
            return NULL;
        }
        PyErr_Clear(); /* whoever adds it another way will say what is wrong with it */
        return PyLong_FromLong(0);
    }
    if (look_at_clock(self, &now) < 0) {
        PyBuffer_Release(&piece);
        return NULL;
    }
    /* Asked for last: the buffer, or the clock, may have been Python's. */
    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->frame.obj != NULL && !self->ended && now - self->last <= self->pause
#ifndef MS_WINDOWS
        && self->process == getpid()
#endif
        && piece.len <= self->limit - self->used && PyBuffer_IsContiguous(&piece, 'C')) {
        size = piece.len;
        mask_bytes((unsigned char *)self->frame.buf + self->at + self->used, piece.buf, size, self->key, self->used & 3);
        self->used += size;
        self->joined += size;
        self->last = now;
    }
    Py_END_CRITICAL_SECTION();
    PyBuffer_Release(&piece);
    return PyLong_FromSsize_t(size);
}

PyDoc_STRVAR(shut_doc,
"shut()\n--\n\n"
"Let nothing join until it is opened again.");

static PyObject *
growing_shut(Growing *self, PyObject *nothing)
{
    Py_buffer frame;

    Py_BEGIN_CRITICAL_SECTION(self);
    frame = self->frame;
    self->frame.obj = NULL;
    Py_END_CRITICAL_SECTION();
    PyBuffer_Release(&frame); /* does nothing without an obj */
    Py_RETURN_NONE;
}

PyDoc_STRVAR(end_doc,
"end()\n--\n\n"
"Let nothing join any more. Any thread.");

static PyObject *
growing_end(Growing *self, PyObject *nothing)
{
    Py_BEGIN_CRITICAL_SECTION(self);
    self->ended = 1;
    Py_END_CRITICAL_SECTION();
    Py_RETURN_NONE;
}

static PyObject *
growing_get_used(Growing *self, void *nothing)
{
    Py_ssize_t used;

    Py_BEGIN_CRITICAL_SECTION(self);
    used = self->used;
    Py_END_CRITICAL_SECTION();
    return PyLong_FromSsize_t(used);
}

static int
growing_set_used(Growing *self, PyObject *value, void *nothing)
{
    Py_ssize_t used = value == NULL ? -1 : PyNumber_AsSsize_t(value, PyExc_OverflowError);
    int result = -1;

    if (used < 0) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "used must be a number of bytes");
        }
        return -1;
    }
    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->frame.obj != NULL) {
        PyErr_SetString(PyExc_ValueError, "it is open, and others may be changing it");
    }
    else {
        self->used = used;
        result = 0;
    }
    Py_END_CRITICAL_SECTION();
    return result;
}

static PyObject *
growing_get_joined(Growing *self, void *nothing)
{
    int64_t joined;

    Py_BEGIN_CRITICAL_SECTION(self);
    joined = self->joined;
    Py_END_CRITICAL_SECTION();
    return PyLong_FromLongLong(joined);
}

static PyObject *
growing_get_last(Growing *self, void *nothing)
{
    double last;

    Py_BEGIN_CRITICAL_SECTION(self);
    last = self->last;
    Py_END_CRITICAL_SECTION();
    return PyFloat_FromDouble(last);
}

static PyMethodDef growing_methods[] = {
    {"open", (PyCFunction)growing_open, METH_VARARGS, open_doc},
    {"join", (PyCFunction)growing_join, METH_O, join_doc},
    {"shut", (PyCFunction)growing_shut, METH_NOARGS, shut_doc},
    {"end", (PyCFunction)growing_end, METH_NOARGS, end_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef growing_attributes[] = {
    {"used", (getter)growing_get_used, (setter)growing_set_used, "Bytes of payload; set while it is shut.", NULL},
    {"joined", (getter)growing_get_joined, NULL, "How many bytes have ever joined.", NULL},
    {"last", (getter)growing_get_last, NULL, "When the last of them did, or it was opened, by the clock.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot growing_slots[] = {
    {Py_tp_doc, "Growing(clock, pause, /)\n--\n\nA frame that any thread may add to; see growing.py."},
    {Py_tp_new, growing_new},
    {Py_tp_dealloc, growing_dealloc},
    {Py_tp_methods, growing_methods},
    {Py_tp_getset, growing_attributes},
    {0, NULL},
};

static PyType_Spec growing_spec = {
    .name = "iii_sync.wire._mask.Growing",
    .basicsize = sizeof(Growing),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = growing_slots,
};

static int
add_type(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &growing_spec, NULL);

    if (type == NULL || PyModule_AddObject(module, "Growing", type) < 0) {
        Py_XDECREF(type);
        return -1;
    }
    return 0;
}

static PyMethodDef methods[] = {
    {"mask_into", (PyCFunction)(void (*)(void))mask_into, METH_FASTCALL, mask_into_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, add_type},
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
    .m_name = "iii_sync.wire._mask",
    .m_doc = "The quick way to mask frames; see mask.py.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__mask(void)
{
    return PyModuleDef_Init(&definition);
}
