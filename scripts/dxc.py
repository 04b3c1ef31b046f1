#!/usr/bin/env python3
"""Compiles HLSL with DirectX's own compiler: dxc.py LIBRARY [FILE ENTRY_POINT]...

LIBRARY is libdxcompiler.so (ensure_dxc in scripts/tools.sh fetches it), which is called as the COM object that it is. Each file
is compiled as wgpu does it, to DXIL, which is validated; ends with 1 at the first that is refused.
"""

import ctypes
import sys
import uuid
from ctypes import POINTER, c_int32, c_size_t, c_uint32, c_void_p, c_wchar_p

# Compute shaders of shader model 6.2, with f16, in the language of 2018.
ARGUMENTS = ["-T", "cs_6_2", "-HV", "2018", "-enable-16bit-types", "-no-warnings"]

CLASS = "73e22d93-e6ce-47f3-b5bf-f0664f39c1b0"  # DxcCompiler
COMPILER = "228b4687-5a6a-4730-900c-9702b2203f54"  # IDxcCompiler3
RESULT = "58346cda-dde7-4497-9461-6f87af5e0659"  # IDxcResult
UTF8 = 65001

# Slots of virtual functions. Three of IUnknown, and on Linux two of its destructor, come first.
RELEASE, FIRST = 2, 5
COMPILE = FIRST
STATUS, OBJECT, ERRORS = FIRST, FIRST + 1, FIRST + 2
POINTER_OF, SIZE_OF = FIRST, FIRST + 1


class Source(ctypes.Structure):
    _fields_ = [("text", c_void_p), ("size", c_size_t), ("encoding", c_uint32)]


def identifier(text):
    return ctypes.create_string_buffer(uuid.UUID(text).bytes_le, 16)


def call(object, slot, returns, *arguments):
    """Calls a virtual function; arguments are pairs of a type and a value."""
    table = ctypes.cast(ctypes.cast(object, POINTER(c_void_p))[0], POINTER(c_void_p))
    types = [type for type, _ in arguments]
    return ctypes.CFUNCTYPE(returns, c_void_p, *types)(table[slot])(object, *[value for _, value in arguments])


def check(result, what):
    if result < 0:
        sys.exit(f"{what}: error {result & 0xFFFFFFFF:#x}")


def output(object, slot):
    """What a function of this slot returns through a pointer."""
    found = c_void_p()
    check(call(object, slot, c_int32, (c_void_p, ctypes.addressof(found))), "an output")
    return found


def content(blob):
    data = call(blob, POINTER_OF, c_void_p)
    return ctypes.string_at(data, call(blob, SIZE_OF, c_size_t)) if data else b""


def complaint(compiler, path, entry_point):
    """What the compiler says against a file, or None."""
    with open(path, "rb") as file:
        text = file.read()
    kept = ctypes.create_string_buffer(text, len(text))
    source = Source(ctypes.addressof(kept), len(text), UTF8)
    arguments = (c_wchar_p * (len(ARGUMENTS) + 3))(*ARGUMENTS, "-E", entry_point, path)
    asked = identifier(RESULT)
    result = c_void_p()
    done = call(
        compiler,
        COMPILE,
        c_int32,
        (c_void_p, ctypes.addressof(source)),
        (c_void_p, ctypes.addressof(arguments)),
        (c_uint32, len(arguments)),
        (c_void_p, None),
        (c_void_p, ctypes.addressof(asked)),
        (c_void_p, ctypes.addressof(result)),
    )
    check(done, path)
    status = c_int32()
    check(call(result, STATUS, c_int32, (c_void_p, ctypes.addressof(status))), path)
    said = None
    if status.value < 0:
        said = content(output(result, ERRORS)).decode(errors="replace")
    elif not content(output(result, OBJECT)).startswith(b"DXBC"):
        said = "the output is not DXIL"
    call(result, RELEASE, c_uint32)
    return said


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help") or len(sys.argv) % 2:
        sys.exit(__doc__)
    library = ctypes.CDLL(sys.argv[1])
    compiler, of_class, interface = c_void_p(), identifier(CLASS), identifier(COMPILER)
    check(library.DxcCreateInstance(of_class, interface, ctypes.byref(compiler)), sys.argv[1])
    files = list(zip(sys.argv[2::2], sys.argv[3::2]))
    for path, entry_point in files:
        said = complaint(compiler, path, entry_point)
        if said is not None:
            sys.exit(f"{path}, {entry_point}: {said}")
    print(f"{len(files)} files compiled")


main()
