# Where things are installed. An installed tree has bin/, lib/, include/ and lib/cmake/hydrofoil/ under its prefix. A
# wheel has the programs among its scripts, and the rest under hydrofoil/ beside the Python package.
set(HYDROFOIL_CMAKE_DIR lib/cmake/hydrofoil)
if(SKBUILD)
  set(HYDROFOIL_BIN_DIR ${SKBUILD_SCRIPTS_DIR})
  set(HYDROFOIL_PACKAGE_PREFIX hydrofoil/)
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c "import os, sysconfig as s; print(os.path.relpath(s.get_path('platlib'), s.get_path('scripts')))"
    OUTPUT_VARIABLE packages OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  # The torch beside the wheel first; then, for a virtual environment over other site-packages, the one of the build.
  set(HYDROFOIL_PROGRAM_RPATH "$ORIGIN/${packages}/torch/lib;${HYDROFOIL_TORCH_DIR}/lib")
else()
  set(HYDROFOIL_BIN_DIR bin)
  set(HYDROFOIL_PACKAGE_PREFIX "")
  set(HYDROFOIL_PROGRAM_RPATH ${HYDROFOIL_TORCH_DIR}/lib)
endif()

# Installs the CMake package hydrofoil over all modules: hydrofoil::<module> each and hydrofoil::hydrofoil.
function(hydrofoil_install_package)
  include(CMakePackageConfigHelpers)
  get_property(modules GLOBAL PROPERTY HYDROFOIL_MODULES)
  add_library(hydrofoil INTERFACE)
  add_library(hydrofoil::hydrofoil ALIAS hydrofoil)
  target_link_libraries(hydrofoil INTERFACE ${modules})
  install(TARGETS hydrofoil ${modules} EXPORT hydrofoil-targets
    ARCHIVE DESTINATION ${HYDROFOIL_PACKAGE_PREFIX}lib
    FILE_SET HEADERS DESTINATION ${HYDROFOIL_PACKAGE_PREFIX}include)
  set(destination ${HYDROFOIL_PACKAGE_PREFIX}${HYDROFOIL_CMAKE_DIR})
  install(EXPORT hydrofoil-targets NAMESPACE hydrofoil:: FILE hydrofoilTargets.cmake DESTINATION ${destination})
  configure_file(${PROJECT_SOURCE_DIR}/cmake/hydrofoilConfig.cmake.in ${PROJECT_BINARY_DIR}/hydrofoilConfig.cmake @ONLY)
  write_basic_package_version_file(${PROJECT_BINARY_DIR}/hydrofoilConfigVersion.cmake COMPATIBILITY SameMinorVersion)
  install(FILES ${PROJECT_BINARY_DIR}/hydrofoilConfig.cmake ${PROJECT_BINARY_DIR}/hydrofoilConfigVersion.cmake
    ${PROJECT_SOURCE_DIR}/cmake/HydrofoilTorchTarget.cmake DESTINATION ${destination})
endfunction()
