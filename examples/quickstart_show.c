/* What the quickstart shows: the machine, the cost, the curves as SVG. */
#include "quickstart.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WIDTH = 720, HEIGHT = 400, LEFT = 60, RIGHT = 24, TOP = 52, BOTTOM = 48 };

int is_terminal(void)
{
    return isatty(STDOUT_FILENO);
}

void make_folder(const char *path)
{
    if (mkdir(path, 0777) != 0 && errno != EEXIST) {
        perror(path);
        exit(1);
    }
}

int file_is_there(const char *path)
{
    return access(path, F_OK) == 0;
}

/* Five hexadecimal doubles a line: they come back as they were. */
enum { POINT_TEXT = 160 };

char *points_to_text(const run *r)
{
    char *text = calloc(r->n_points + 1, POINT_TEXT);
    size_t n = 0;
    if (text == NULL) {
        fprintf(stderr, "no memory\n");
        exit(1);
    }
    for (uint32_t i = 0; i < r->n_points; i++) {
        const point *p = &r->points[i];
        n += (size_t)snprintf(text + n, POINT_TEXT, "%a %a %a %a %a\n", p->mean, p->q1, p->q3, p->min,
                              p->max);
    }
    return text;
}

void points_from_text(const char *text, run *r)
{
    int n;
    for (point p; r->n_points < r->n_steps && sscanf(text, "%la %la %la %la %la\n%n", &p.mean, &p.q1,
                                                     &p.q3, &p.min, &p.max, &n) == 5;
         text += n)
        r->points[r->n_points++] = p;
    r->n_restored = r->n_points;
}

void describe(pgrad_context *context, pgrad_model *model, const task *t)
{
    pgrad_context_info machine = {.struct_size = sizeof machine};
    pgrad_model_info info = {.struct_size = sizeof info};
    CHECK(pgrad_context_get_info(context, &machine));
    CHECK(pgrad_model_get_info(model, &info));
    printf("model: %s, %u layers, %.2f million parameters; task: %s; %s kernels, %u threads\n",
           info.architecture, info.n_layers, (double)info.n_parameters / 1e6, t->name,
           machine.kernel_set_name, machine.n_threads);
    printf("reward: %s\n", t->scale);
}

void describe_cost(pgrad_context *context, const run *r)
{
    pgrad_context_info machine = {.struct_size = sizeof machine};
    CHECK(pgrad_context_get_info(context, &machine));
    printf(
        "%u steps in %.1f s: %.0f completion tokens per second, generation and learning together; "
        "%.0f MB held at most\n",
        r->n_points, r->seconds, r->tokens / r->seconds, (double)machine.memory_peak / 1e6);
}

static double x_of(const run *r, uint32_t i)
{
    double span = r->n_steps > 1 ? r->n_steps - 1 : 1;
    return LEFT + (WIDTH - LEFT - RIGHT) * i / span;
}

static double y_of(double reward, double top)
{
    const double room = 1.04 * top; /* a band along the top stays to be seen */
    double share = reward < 0.0 ? 0.0 : reward > room ? 1.0 : reward / room;
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share;
}

/* 1, 2 or 5 times a power of ten, for at most eight ticks. */
static uint32_t tick_every(uint32_t n_steps)
{
    static const uint32_t MULTIPLES[] = {1, 2, 5};
    for (uint32_t power = 1;; power *= 10)
        for (int i = 0; i < 3; i++)
            if (n_steps / (power * MULTIPLES[i]) <= 8)
                return power * MULTIPLES[i];
}

static void draw_axes(FILE *svg, const run *r, double top)
{
    for (int i = 0; i <= 5; i++) {
        double value = top * i / 5, y = y_of(value, top);
        fprintf(svg, "<line x1='%d' y1='%.1f' x2='%d' y2='%.1f' stroke='#e4e4e4'/>\n", LEFT, y,
                WIDTH - RIGHT, y);
        fprintf(svg, "<text x='%d' y='%.1f' text-anchor='end'>%.2g</text>\n", LEFT - 8, y + 4,
                value);
    }
    for (uint32_t step = 1, each = tick_every(r->n_steps); step <= r->n_steps;
         step = step == 1 && each > 1 ? each : step + each)
        fprintf(svg, "<text x='%.1f' y='%d' text-anchor='middle'>%u</text>\n", x_of(r, step - 1),
                HEIGHT - BOTTOM + 18, step);
    fprintf(svg, "<text x='%d' y='%d' text-anchor='middle'>step</text>\n",
            (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10);
    fprintf(
        svg,
        "<text x='16' y='%d' text-anchor='middle' transform='rotate(-90 16 %d)'>reward</text>\n",
        (TOP + HEIGHT - BOTTOM) / 2, (TOP + HEIGHT - BOTTOM) / 2);
}

static void draw_run(FILE *svg, const run *r, const char *colour, double top)
{
    fprintf(svg, "<path fill='%s' fill-opacity='0.18' d='M", colour);
    for (uint32_t i = 0; i < r->n_points; i++)
        fprintf(svg, "%.1f,%.1f ", x_of(r, i), y_of(r->points[i].q3, top));
    for (uint32_t i = r->n_points; i-- > 0;)
        fprintf(svg, "L%.1f,%.1f ", x_of(r, i), y_of(r->points[i].q1, top));
    fprintf(svg,
            "Z' stroke='%s' stroke-opacity='0.35'/>\n<polyline fill='none' stroke='%s' "
            "stroke-width='2' points='",
            colour, colour);
    for (uint32_t i = 0; i < r->n_points; i++)
        fprintf(svg, "%.1f,%.1f ", x_of(r, i), y_of(r->points[i].mean, top));
    fprintf(svg, "'/>\n");
}

void draw_curves(const char *path, const char *task_name, const run *learned, const run *control)
{
    const char *const BLUE = "#1f6fb4", *const GREY = "#8a6d3b";
    double top = 0.2;
    for (uint32_t i = 0; i < learned->n_points; i++)
        while (learned->points[i].q3 > top)
            top += 0.2;
    FILE *svg = fopen(path, "w");
    if (svg == NULL) {
        perror(path);
        exit(1);
    }
    fprintf(
        svg,
        "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' font-family='sans-serif' "
        "font-size='12' fill='#333'>\n<rect width='100%%' height='100%%' fill='white'/>\n",
        WIDTH, HEIGHT);
    fprintf(svg, "<text x='%d' y='22' font-size='15'>reward while learning: %s</text>\n", LEFT,
            task_name);
    fprintf(svg,
            "<text x='%d' y='40' fill='%s'>learning (mean, quartiles)</text><text x='%d' y='40' "
            "fill='%s'>control: advantages shuffled</text>\n",
            LEFT, BLUE, LEFT + 190, GREY);
    draw_axes(svg, learned, top);
    draw_run(svg, control, GREY, top);
    draw_run(svg, learned, BLUE, top);
    fprintf(svg, "</svg>\n");
    if (fclose(svg) != 0) {
        perror(path);
        exit(1);
    }
}

int convert_to_png(const char *svg_path)
{
    char png[4096];
    int status = 1;
    size_t length = strlen(svg_path);
    if (length < 4 || length >= sizeof png)
        return 0;
    memcpy(png, svg_path, length + 1);
    memcpy(png + length - 4, ".png", 5);
    pid_t child = fork();
    if (child == 0) {
        execlp("rsvg-convert", "rsvg-convert", svg_path, "-o", png, (char *)NULL);
        _exit(127);
    }
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}
