/* picture.c: PNG by libpng. */
#include "picture.h"
#include "tests/support/run.h"

#include <check.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>

picture read_picture(const char *name) {
    char path[4400];
    picture p = {0};
    (void)snprintf(path, sizeof path, "%s/%s", run_folder(), name);
    FILE *file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "no picture %s", path);
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    ck_assert_ptr_nonnull(info);
    if (setjmp(png_jmpbuf(png)))
        ck_abort_msg("%s is no good PNG", path);
    png_init_io(png, file);
    png_read_png(png, info, PNG_TRANSFORM_IDENTITY, NULL);
    p.width = png_get_image_width(png, info);
    p.height = png_get_image_height(png, info);
    ck_assert_int_eq(png_get_color_type(png, info), PNG_COLOR_TYPE_RGB);
    p.pixels = malloc((size_t)p.width * p.height * 3);
    for (uint32_t y = 0; y < p.height; ++y)
        memcpy(p.pixels + (size_t)y * p.width * 3, png_get_rows(png, info)[y], (size_t)p.width * 3);
    png_textp text;
    int count = 0;
    png_get_text(png, info, &text, &count);
    for (int i = 0; i < count; ++i)
        if (strcmp(text[i].key, "parameters") == 0)
            p.parameters = strdup(text[i].text);
    ck_assert_msg(p.parameters != NULL, "%s has no parameters", path);
    png_destroy_read_struct(&png, &info, NULL);
    fclose(file);
    return p;
}

void free_picture(picture *p) {
    free(p->pixels);
    free(p->parameters);
}
