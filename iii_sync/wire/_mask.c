/* Masking of client frames (RFC 6455, 5.3): copy and XOR in one pass.
 *
 * Optional: without it mask.py falls back to numpy or to big integers. Words go through memcpy, so no address
 * has to be aligned; the compiler makes vector instructions of the loop.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

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

static PyMethodDef methods[] = {
    {"mask_into", (PyCFunction)(void (*)(void))mask_into, METH_FASTCALL, mask_into_doc},
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
