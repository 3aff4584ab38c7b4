/* A copy as C makes it, for tree.py: other threads of the interpreter go on meanwhile, whatever the size.
 *
 * Assigning to a slice of a memoryview keeps the interpreter's lock for the whole copy, which would measure the tree,
 * not the session that brings it the bytes. Called through ctypes.PyDLL, with the lock held.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* 0, or -1 with an exception set. `target` has room for all of `source`, and nobody resizes `source` meanwhile. */
int copy_from(char *target, PyObject *source) {
    Py_buffer view;
    if (PyObject_GetBuffer(source, &view, PyBUF_SIMPLE)) return -1;
    Py_BEGIN_ALLOW_THREADS
    memcpy(target, view.buf, view.len);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&view);
    return 0;
}
