/*
 * What a rank needs of the C library: leave() is in csrc/leave.h, guard(),
 * ended_well() and mark() are procset_guard_start(),
 * procset_guard_ended_well() and procset_tree_mark() in csrc/procset.h.
 *
 * Every rank imports it. It is C and not Cython, because a Cython module for
 * the stable ABI imports `inspect` when it is imported, which takes longer
 * than the start of the interpreter.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "leave.h"
#include "procset.h"

static PyObject *
leave(PyObject *module, PyObject *argument)
{
    // All 32 bits that Windows keeps.
    unsigned long code = PyLong_AsUnsignedLongMask(argument);

    (void) module;
    if (code == (unsigned long) -1 && PyErr_Occurred()) {
        return NULL;
    }
    procset_leave((int) code);
}

static PyObject *
raise_error(int error)
{
    PyObject *text = PyUnicode_FromFormat("%s failed with code %d",
                                          procset_error_call(error),
                                          procset_error_code(error));
    PyObject *arguments =
        text == NULL ? NULL
                     : Py_BuildValue("iO", procset_error_code(error), text);

    if (arguments != NULL) {
        PyErr_SetObject(PyExc_OSError, arguments);
    }
    Py_XDECREF(arguments);
    Py_XDECREF(text);
    return NULL;
}

static PyObject *
guard(PyObject *module, PyObject *arguments)
{
    procset_guard guard;
    const char *job;
    Py_ssize_t rank, pipe, launcher, board, world_size;
    unsigned features;
    bool is_private = false;
    int r;

    (void) module;
    if (!PyArg_ParseTuple(arguments, "nsInnnn", &rank, &job, &features, &pipe,
                          &launcher, &board, &world_size)) {
        return NULL;
    }
    guard = (procset_guard) {
        .features = features,
        .pipe = (procset_handle) pipe,
        .launcher = (procset_handle) launcher,
        .job = job,
        .rank = (size_t) rank,
        .board = (procset_handle) board,
        .world_size = (size_t) world_size,
    };
    r = procset_guard_start(&guard, &is_private);
    return r < 0 ? raise_error(r) : PyBool_FromLong(is_private);
}

static PyObject *
ended_well(PyObject *module, PyObject *unused)
{
    (void) module;
    (void) unused;
    procset_guard_ended_well();
    Py_RETURN_NONE;
}

static PyObject *
mark(PyObject *module, PyObject *arguments)
{
    const char *job;
    Py_ssize_t rank;
    int r;

    (void) module;
    if (!PyArg_ParseTuple(arguments, "sn", &job, &rank)) {
        return NULL;
    }
    r = procset_tree_mark(job, (size_t) rank);
    if (r < 0) {
        return raise_error(r);
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"guard", guard, METH_VARARGS,
     "Start the guard of this process: rank, job, features, the pipe of the "
     "launcher, its handle or -1, the board or -1, and the world size. Return "
     "whether pipe and handle may be closed; the board may be in any case."},
    {"ended_well", ended_well, METH_NOARGS,
     "Say that this rank ends well, and what it has started may stay."},
    {"mark", mark, METH_VARARGS,
     "Give this process the mark of a job and a rank, for its forks."},
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
