# Target hydrofoil_torch: the libtorch inside the pip wheel that this Python imports.
# find_package(Torch) is left out on purpose: it searches for MKL, CUDA and Caffe2 and takes longer than our configure.
find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)
execute_process(
  COMMAND ${Python_EXECUTABLE} -c "import importlib.util, os; s = importlib.util.find_spec('torch'); print(os.path.dirname(s.origin) if s else '')"
  OUTPUT_VARIABLE HYDROFOIL_TORCH_DIR OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT HYDROFOIL_TORCH_DIR)
  message(FATAL_ERROR "torch is not installed for ${Python_EXECUTABLE}; install it first: ${Python_EXECUTABLE} -m pip install torch==2.13.0")
endif()
file(STRINGS ${HYDROFOIL_TORCH_DIR}/version.py _torch_version REGEX "^__version__")
string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" HYDROFOIL_TORCH_VERSION "${_torch_version}")
string(REGEX MATCH "^[0-9]+\\.[0-9]+" HYDROFOIL_TORCH_MINOR "${HYDROFOIL_TORCH_VERSION}")
message(STATUS "torch ${HYDROFOIL_TORCH_VERSION} in ${HYDROFOIL_TORCH_DIR}")

# The headers without the libraries: for code that only names c10's types.
add_library(hydrofoil_torch_headers INTERFACE)
target_include_directories(hydrofoil_torch_headers SYSTEM INTERFACE
  ${HYDROFOIL_TORCH_DIR}/include ${HYDROFOIL_TORCH_DIR}/include/torch/csrc/api/include)
add_library(hydrofoil_torch INTERFACE)
target_compile_definitions(hydrofoil_torch INTERFACE _GLIBCXX_USE_CXX11_ABI=1 USE_DISTRIBUTED USE_C10D)
target_link_directories(hydrofoil_torch INTERFACE ${HYDROFOIL_TORCH_DIR}/lib)
target_link_libraries(hydrofoil_torch INTERFACE hydrofoil_torch_headers torch torch_cpu c10)
if(EXISTS ${HYDROFOIL_TORCH_DIR}/lib/libtorch_cuda.so)
  # c10d headers of a CUDA wheel include CUDA's; the runtime library itself is loaded by libtorch.
  find_package(CUDAToolkit QUIET)
  if(CUDAToolkit_FOUND)
    target_include_directories(hydrofoil_torch SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS})
  endif()
endif()
target_link_options(hydrofoil_torch INTERFACE -Wl,-rpath,${HYDROFOIL_TORCH_DIR}/lib)
