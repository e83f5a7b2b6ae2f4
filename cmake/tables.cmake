# am_table(TARGET FOLDER TYPE HEADER): every FOLDER/X.c exports `const TYPE TYPE_X`; generates
# `const TYPE *const TYPE_table[]` (in file-name order, NULL at the end) into TARGET.
function(am_table target folder type header)
  set(suffix "${ARGN}") # optional: a suffix of the symbols, e.g. _f32
  file(GLOB files CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*.c)
  list(SORT files)
  set(declarations "")
  set(entries "")
  foreach(file IN LISTS files)
    get_filename_component(name ${file} NAME_WE)
    string(APPEND declarations "extern const ${type} ${type}_${name}${suffix};\n")
    string(APPEND entries "    &${type}_${name}${suffix},\n")
  endforeach()
  set(out ${PROJECT_BINARY_DIR}/generated/${type}_table${suffix}.c)
  file(CONFIGURE OUTPUT ${out} @ONLY CONTENT "#include \"${header}\"
${declarations}
extern const ${type} *const ${type}_table${suffix}[];
const ${type} *const ${type}_table${suffix}[] = {
${entries}    0,
};
")
  target_sources(${target} PRIVATE ${out})
endfunction()
