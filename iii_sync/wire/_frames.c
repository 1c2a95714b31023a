/* Splitting what a stream is made of, binary messages of one frame each, into their payloads.
 *
 * Optional: without it frames.py does the same. What is special, forbidden or not all there is not judged here, only
 * left to the parser in frames.py; so nothing is decided twice.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

/* The first byte of a binary message that is a single frame (RFC 6455, 5.2). */
#define WHOLE_BINARY 0x82

/* Bytes of the longest header that a server may send. */
#define LONGEST_HEADER 10

/* Append view[start:stop] to list. */
static int
append_slice(PyObject *list, PyObject *view, Py_ssize_t start, Py_ssize_t stop)
{
    PyObject *first = PyLong_FromSsize_t(start), *last = PyLong_FromSsize_t(stop), *key = NULL, *part = NULL;
    int failed = -1;

    if (first != NULL && last != NULL && (key = PySlice_New(first, last, NULL)) != NULL
            && (part = PyObject_GetItem(view, key)) != NULL) {
        failed = PyList_Append(list, part);
    }
    Py_XDECREF(part);
    Py_XDECREF(key);
    Py_XDECREF(last);
    Py_XDECREF(first);
    return failed;
}

/* Return the size of a header that is all there, and in length what it announces; 0 for one that is not plain. */
static Py_ssize_t
plain_header(const unsigned char *header, int64_t *length)
{
    uint64_t number = 0;
    int i;

    if (header[0] != WHOLE_BINARY) {
        return 0;
    }
    if (header[1] < 126) {
        *length = header[1];
        return header[1] > 0 ? 2 : 0;
    }
    if (header[1] == 126) {
        *length = header[2] << 8 | header[3];
        return *length >= 126 ? 4 : 0;
    }
    if (header[1] > 127) {
        return 0;
    }
    for (i = 2; i < 10; i++) {
        number = number << 8 | header[i];
    }
    *length = (int64_t)number;
    return number >= 65536 && number <= INT64_MAX ? 10 : 0;
}

PyDoc_STRVAR(split_binary_doc,
"split_binary(buffer, start, stop, left, most, /)\n--\n\n"
"Split buffer[start:stop] into the payloads of binary messages, as long as nothing else comes; see frames.py.");

static PyObject *
split_binary(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    PyObject *view = NULL, *payloads = NULL;
    const unsigned char *data;
    Py_ssize_t at, stop, most, messages = 0;
    int64_t left; /* what is announced, which memory of 32 bits could not hold */

    if (count != 5) {
        PyErr_Format(PyExc_TypeError, "split_binary() takes 5 arguments, not %zd", count);
        return NULL;
    }
    at = PyNumber_AsSsize_t(args[1], PyExc_OverflowError);
    if (at == -1 && PyErr_Occurred()) {
        return NULL;
    }
    stop = PyNumber_AsSsize_t(args[2], PyExc_OverflowError);
    if (stop == -1 && PyErr_Occurred()) {
        return NULL;
    }
    left = PyLong_AsLongLong(args[3]);
    if (left == -1 && PyErr_Occurred()) {
        return NULL;
    }
    most = PyNumber_AsSsize_t(args[4], PyExc_OverflowError);
    if (most == -1 && PyErr_Occurred()) {
        return NULL;
    }
    /* It keeps the memory where it is, whatever runs while objects are made. */
    if ((view = PyMemoryView_FromObject(args[0])) == NULL) {
        return NULL;
    }
    if (PyMemoryView_GET_BUFFER(view)->itemsize != 1 || PyMemoryView_GET_BUFFER(view)->ndim != 1
            || !PyBuffer_IsContiguous(PyMemoryView_GET_BUFFER(view), 'C')) {
        PyErr_SetString(PyExc_ValueError, "the buffer is not of single bytes, one behind the other");
        goto failed;
    }
    if (at < 0 || stop < at || stop > PyMemoryView_GET_BUFFER(view)->len || left < 0) {
        PyErr_Format(PyExc_ValueError, "bytes %zd to %zd of %zd, %lld left", at, stop,
                     PyMemoryView_GET_BUFFER(view)->len, (long long)left);
        goto failed;
    }
    if ((payloads = PyList_New(0)) == NULL) {
        goto failed;
    }
    data = PyMemoryView_GET_BUFFER(view)->buf;
    for (;;) {
        Py_ssize_t header;
        if (left) {
            Py_ssize_t size = left <= stop - at ? (Py_ssize_t)left : stop - at;
            if (size && append_slice(payloads, view, at, at + size) < 0) {
                goto failed;
            }
            at += size;
            left -= size;
            if (left) {
                break;
            }
            messages++;
        }
        if (stop - at < LONGEST_HEADER || PyList_GET_SIZE(payloads) >= most
                || (header = plain_header(data + at, &left)) == 0) {
            left = 0;
            break;
        }
        at += header;
    }
    Py_DECREF(view);
    return Py_BuildValue("(NnLn)", payloads, at, (long long)left, messages);

failed:
    Py_XDECREF(payloads);
    Py_DECREF(view);
    return NULL;
}

static PyMethodDef methods[] = {
    {"split_binary", (PyCFunction)(void (*)(void))split_binary, METH_FASTCALL, split_binary_doc},
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
    .m_name = "iii_sync.wire._frames",
    .m_doc = "The quick way to read frames; see frames.py.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__frames(void)
{
    return PyModuleDef_Init(&definition);
}
