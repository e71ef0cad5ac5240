# Shared by the build and by the installed package.

# The version of the torch in `directory`, a pip wheel's package or an unpacked libtorch: "2.13.0". "" where it is none.
function(hydrofoil_torch_version directory result)
  set(text "")
  if(EXISTS ${directory}/lib/libtorch_cpu.so AND EXISTS ${directory}/version.py)
    file(STRINGS ${directory}/version.py text REGEX "^__version__")
  elseif(EXISTS ${directory}/lib/libtorch_cpu.so AND EXISTS ${directory}/build-version)
    file(STRINGS ${directory}/build-version text LIMIT_COUNT 1)
  endif()
  string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" version "${text}")
  set(${result} "${version}" PARENT_SCOPE)
endfunction()

# The folder of the torch that `python` would import, or "". It is found, not imported, which would take seconds.
function(hydrofoil_torch_of_python python result)
  execute_process(
    COMMAND ${python} -c "import importlib.util, os; s = importlib.util.find_spec('torch'); print(os.path.dirname(s.origin) if s and s.origin else '')"
    OUTPUT_VARIABLE directory OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  set(${result} "${directory}" PARENT_SCOPE)
endfunction()

# Targets hydrofoil::torch_headers, for code that only names types of c10, hydrofoil::torch, the libtorch in `directory`, and hydrofoil::openmp, the OpenMP runtime that it loads: a
# second one would bring threads of its own. They are imported, so an export of targets names them and no path.
function(hydrofoil_torch_target directory)
  add_library(hydrofoil::torch_headers INTERFACE IMPORTED)
  target_include_directories(hydrofoil::torch_headers INTERFACE
    ${directory}/include ${directory}/include/torch/csrc/api/include)
  add_library(hydrofoil::torch INTERFACE IMPORTED)
  target_link_libraries(hydrofoil::torch INTERFACE hydrofoil::torch_headers)
  target_compile_definitions(hydrofoil::torch INTERFACE _GLIBCXX_USE_CXX11_ABI=1 USE_DISTRIBUTED USE_C10D)
  # The shared one, which libtorch uses, and first: libtorch_cpu.so exports a std::filesystem of its own that crashed with
  # torch 2.11 (github.com/pytorch/pytorch/issues/133437), and streams of a static libstdc++ crash beside a shared one.
  target_link_libraries(hydrofoil::torch INTERFACE -l:libstdc++.so.6)
  foreach(name torch torch_cpu c10)
    target_link_libraries(hydrofoil::torch INTERFACE ${directory}/lib/lib${name}.so)
  endforeach()
  if(EXISTS ${directory}/lib/libtorch_cuda.so)
    # c10d headers of a CUDA wheel include CUDA's; the runtime library itself is loaded by libtorch.
    find_package(CUDAToolkit QUIET)
    if(CUDAToolkit_FOUND)
      target_include_directories(hydrofoil::torch INTERFACE ${CUDAToolkit_INCLUDE_DIRS})
    endif()
  endif()

  add_library(hydrofoil::openmp INTERFACE IMPORTED)
  file(GLOB openmp ${directory}/lib/libgomp*.so* ${directory}/../torch.libs/libgomp*.so*)
  if(openmp)
    list(GET openmp 0 openmp)
  else()
    find_package(OpenMP REQUIRED COMPONENTS CXX)
    set(openmp OpenMP::OpenMP_CXX)
  endif()
  target_link_libraries(hydrofoil::openmp INTERFACE ${openmp})
endfunction()
