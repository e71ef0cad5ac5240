# hydrofoil_module(NAME zero TORCH SOURCES a.cpp HEADERS a.h PRIVATE_HEADERS detail/b.h DEPENDS base comm LIBRARIES ...
#                  BUILD_LIBRARIES ...)
# One folder = one module = one static library hydrofoil_<NAME>, installed as hydrofoil::<NAME> unless NO_INSTALL. Public
# headers form a FILE_SET whose headers are compiled alone by the target all_verify_interface_header_sets. A program on
# an installed hydrofoil needs LIBRARIES; BUILD_LIBRARIES, of headers alone, only this build.
#
# hydrofoil_flags are of this build: a program's warnings and its symbols' visibility are its own.
add_library(hydrofoil_flags INTERFACE)
target_compile_features(hydrofoil_flags INTERFACE cxx_std_20)
target_compile_options(hydrofoil_flags INTERFACE -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers
  -fvisibility=hidden -fvisibility-inlines-hidden $<$<CONFIG:Release>:-O2>)
if(HYDROFOIL_SANITIZE)
  target_compile_options(hydrofoil_flags INTERFACE -fsanitize=${HYDROFOIL_SANITIZE} -fno-omit-frame-pointer -g
    $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)  # gcc takes the instrumentation for use
  target_link_options(hydrofoil_flags INTERFACE -fsanitize=${HYDROFOIL_SANITIZE})
endif()

function(hydrofoil_module)
  cmake_parse_arguments(M "TORCH;NO_INSTALL" "NAME" "SOURCES;HEADERS;PRIVATE_HEADERS;DEPENDS;LIBRARIES;BUILD_LIBRARIES" ${ARGN})
  set(target hydrofoil_${M_NAME})
  add_library(${target} STATIC ${M_SOURCES} ${M_PRIVATE_HEADERS})
  add_library(hydrofoil::${M_NAME} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${M_NAME} POSITION_INDEPENDENT_CODE ON VERIFY_INTERFACE_HEADER_SETS ON)
  target_sources(${target} PUBLIC FILE_SET HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR} FILES ${M_HEADERS})
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_link_libraries(${target} PUBLIC ${M_LIBRARIES})
  foreach(library hydrofoil_flags ${M_BUILD_LIBRARIES})
    target_link_libraries(${target} PUBLIC $<BUILD_INTERFACE:${library}>)
  endforeach()
  foreach(dependency ${M_DEPENDS})
    target_link_libraries(${target} PUBLIC hydrofoil_${dependency})
  endforeach()
  if(M_TORCH)
    target_link_libraries(${target} PUBLIC hydrofoil::torch)
  endif()
  if(NOT M_NO_INSTALL)
    set_property(GLOBAL APPEND PROPERTY HYDROFOIL_MODULES ${target})
  endif()
endfunction()
