/*
 * What only a rank needs of the C library: see csrc/leave.h.
 *
 * Every rank imports it. It is C and not Cython, because a Cython module for
 * the stable ABI imports `inspect` when it is imported, which takes longer
 * than the start of the interpreter.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "leave.h"

static PyObject *
leave(PyObject *module, PyObject *argument)
{
    long code = PyLong_AsLong(argument);

    (void) module;
    if (code == -1 && PyErr_Occurred()) {
        return NULL;
    }
    procset_leave((int) code);
}

static PyMethodDef methods[] = {
    {"leave", leave, METH_O,
     "Flush the streams of the C library and end the process with a code."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "flamespawn._rank_native",
    .m_size = 0,
    .m_methods = methods,
};

PyMODINIT_FUNC
PyInit__rank_native(void)
{
    return PyModuleDef_Init(&module);
}
