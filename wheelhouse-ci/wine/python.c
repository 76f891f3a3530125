/*
 * python.exe for a CPython for Windows whose DLL is all that there is of it.
 * Build with -municode and -DPYTHON_DLL=L"pythonXY.dll".
 */

#include <wchar.h>
#include <windows.h>

typedef int (*py_main)(int, wchar_t **);

int
wmain(int argc, wchar_t **argv)
{
    HMODULE dll = LoadLibraryW(PYTHON_DLL);
    py_main start = NULL;

    if (dll != NULL) {
        start = (py_main) (void (*)(void)) GetProcAddress(dll, "Py_Main");
    }
    return start != NULL ? start(argc, argv) : (int) GetLastError();
}
