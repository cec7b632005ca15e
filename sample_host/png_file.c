/* png_file.c: PNG by libpng. */
#include "png_file.h"
#include "output.h"

#include <png.h>
#include <setjmp.h>

static void on_error(png_structp png, png_const_charp message) {
    char *text = png_get_error_ptr(png);
    (void)snprintf(text, 128, "%s", message);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message) {
    (void)png;
    (void)message; /* libpng warns about its input's oddities; ours has none */
}

static int is_ascii(const char *text) {
    for (; *text; ++text)
        if (*text & 0x80)
            return 0;
    return 1;
}

/* All calls that may longjmp, apart from the resources that they need. Returns 0 on success. */
static int write_rows(png_structp png, png_infop info, FILE *stream, const attune_image *image,
                      const char *parameters) {
    if (setjmp(png_jmpbuf(png)))
        return -1;
    png_text text;
    memset(&text, 0, sizeof text);
    char key[] = "parameters", language[] = "";
    text.compression = is_ascii(parameters) ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
    text.key = key;
    text.text = (png_charp)(uintptr_t)parameters;
    text.lang = language;
    text.lang_key = language;
    png_init_io(png, stream);
    png_set_IHDR(png, info, image->width, image->height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_text(png, info, &text, 1);
    png_write_info(png, info);
    for (uint32_t y = 0; y < image->height; ++y)
        png_write_row(png, image->pixels + (size_t)y * image->stride);
    png_write_end(png, NULL);
    return 0;
}

attune_code png_write(const char *path, const attune_image *image, const char *parameters, int keep,
                      attune_error *error) {
    char text[128] = "no memory";
    output_file file;
    attune_code code = output_begin(&file, path, error);
    if (code != ATTUNE_OK)
        return code;
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, text, on_error, on_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    int failed = !info || write_rows(png, info, file.stream, image, parameters);
    png_destroy_write_struct(&png, &info);
    if (failed && !ferror(file.stream)) {
        output_abandon(&file);
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, "libpng", path, "cannot write %s: %s", path,
                           text);
    }
    return output_commit(&file, keep, error);
}
