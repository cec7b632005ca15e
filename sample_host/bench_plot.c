/* bench_plot.c: a plot is text: SVG 1.1 (W3C, 2011). Each backend is a row of two bars from zero, seconds
 * with their least and most as a line, and peak memory. */
#include "bench_plot.h"
#include "output.h"

#include <math.h>

enum { ROW = 34, TOP = 64, NAMES = 200, BAR = 260, GAP = 110, HEIGHT_OF_BAR = 20 };

/* Text of an element: names come from plugins. */
static void put_text(FILE *out, int x, int y, const char *more, const char *text) {
    fprintf(out, "<text x=\"%d\" y=\"%d\"%s>", x, y, more);
    for (; *text; ++text) {
        if (*text == '<' || *text == '&')
            fputs(*text == '<' ? "&lt;" : "&amp;", out);
        else
            fputc(*text, out);
    }
    fputs("</text>\n", out);
}

static void put_bar(FILE *out, double x, double y, double width, const char *colour) {
    fprintf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", x, y, width,
            HEIGHT_OF_BAR, colour);
}

static void put_row(FILE *out, const plot_bar *bar, int y, double most_seconds, double most_peak) {
    const double unit = BAR / most_seconds, middle = y + HEIGHT_OF_BAR / 2.0;
    const int memory = NAMES + BAR + GAP;
    char text[64];
    put_text(out, NAMES - 10, y + 9, " text-anchor=\"end\"", bar->name);
    put_text(out, NAMES - 10, y + 21, " text-anchor=\"end\" font-size=\"10\" fill=\"#666\"", bar->class);
    put_bar(out, NAMES, y, unit * bar->seconds.median, "#4878a8");
    fprintf(out, "<path d=\"M%.1f %.1fH%.1f\" stroke=\"#222\"/>\n", NAMES + unit * bar->seconds.min, middle,
            NAMES + unit * bar->seconds.max);
    (void)snprintf(text, sizeof text, "%.3g s", bar->seconds.median);
    put_text(out, NAMES + (int)(unit * bar->seconds.max) + 6, y + 15, "", text);
    if (!bar->peak)
        return;
    put_bar(out, memory, y, BAR * (double)bar->peak / most_peak, "#c07838");
    (void)snprintf(text, sizeof text, "%.0f MiB", ldexp((double)bar->peak, -20));
    put_text(out, memory + (int)(BAR * (double)bar->peak / most_peak) + 6, y + 15, "", text);
}

attune_code bench_plot_write(const char *path, const char *title, const plot_bar *bars, uint32_t count,
                             attune_error *error) {
    const int width = NAMES + 2 * (BAR + GAP), height = TOP + (int)count * ROW;
    double most_seconds = 0, most_peak = 0;
    output_file file;
    attune_code code = output_begin(&file, path, error);
    if (code != ATTUNE_OK)
        return code;
    for (uint32_t i = 0; i < count; ++i) {
        most_seconds = fmax(most_seconds, bars[i].seconds.max);
        most_peak = fmax(most_peak, (double)bars[i].peak);
    }
    fprintf(file.stream,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" "
            "font-size=\"13\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
            width, height);
    put_text(file.stream, 12, 22, " font-weight=\"bold\"", title);
    put_text(file.stream, NAMES, 50, "", "seconds");
    put_text(file.stream, NAMES + BAR + GAP, 50, "", "peak memory");
    for (uint32_t i = 0; i < count; ++i)
        put_row(file.stream, &bars[i], TOP + (int)i * ROW, most_seconds, most_peak);
    fputs("</svg>\n", file.stream);
    return output_commit(&file, 0, error);
}
