/* host.c: an application with Attune in it: load, see what is there, choose per request, run one attention,
 * make one picture. */
#include <attune/host.h>
#include <stdlib.h>

static attune_error error;
static attune *host;

static void must(attune_code code) {
    if (code == ATTUNE_OK)
        return;
    fprintf(stderr, "%s: %s: %s; %s\n", attune_code_name(code), error.where, error.message, error.hint);
    exit(1);
}

/* One attention on the CPU. This request wants the same bits everywhere; the next one may want speed. */
static void attend_once(void) {
    static float q[2 * 64 * 40], k[2 * 77 * 40], v[2 * 77 * 40], out[2 * 64 * 40];
    attune_device_id cpu;
    attune_stream stream = {.struct_size = sizeof stream};
    must(attune_cpu_device(host, &cpu, &error));
    must(attune_stream_create(host, &cpu, 0, &stream, &error));
    attune_tensor tq = attune_tensor_view(q, ATTUNE_F32, cpu, 4, (int64_t[]){1, 2, 64, 40});
    attune_tensor tk = attune_tensor_view(k, ATTUNE_F32, cpu, 4, (int64_t[]){1, 2, 77, 40});
    attune_tensor tv = attune_tensor_view(v, ATTUNE_F32, cpu, 4, (int64_t[]){1, 2, 77, 40});
    attune_tensor to = attune_tensor_view(out, ATTUNE_F32, cpu, 4, (int64_t[]){1, 2, 64, 40});
    for (size_t i = 0; i < sizeof v / sizeof v[0]; ++i)
        v[i] = 1; /* whatever the weights, their mean of ones is one */
    attune_attention_problem problem;
    must(attune_attention_problem_init(&problem, &tq, &tk, &tv, NULL, &to, &error));
    problem.workers = stream.workers;
    attune_wish wish = {
        .struct_size = sizeof wish, .attention = "flash", .determinism = ATTUNE_DETERMINISM_PORTABLE};
    static attune_choice choice = {.struct_size = sizeof choice};
    attune_binding *binding;
    must(attune_choose(host, &wish, &problem, &choice, &binding, &error));
    printf("attention: %s by %s %s, %s\n", choice.backend, choice.plugin, choice.version, choice.fallback);
    attune_attention_args args = {.struct_size = sizeof args, .q = &tq, .k = &tk, .v = &tv, .out = &to};
    must(attune_attend(binding, &args, &stream, NULL, &error));
    printf("attention: out[0] = %g\n", (double)out[0]);
    attune_binding_release(binding);
    attune_stream_destroy(&stream);
}

/* One picture, step by step: a user interface would draw a preview or stop between any two. */
static void draw(const char *path, const char *prompt) {
    attune_wish wish = {.struct_size = sizeof wish, .attention = "sdp"};
    attune_model *model;
    attune_session *session;
    attune_session_plan plan = {.struct_size = sizeof plan};
    attune_progress progress = {.struct_size = sizeof progress};
    attune_request request = {.struct_size = sizeof request,
                              .prompt = prompt,
                              .negative_prompt = "",
                              .seed = 1,
                              .steps = 10,
                              .batch_size = 1,
                              .cfg_scale = 7,
                              .memory_limit = UINT64_MAX};
    must(attune_model_open(host, path, &wish, NULL, &model, &error));
    must(attune_session_open(model, &request, &wish, NULL, &session, &plan, NULL, &error));
    while (!progress.done)
        must(attune_session_step(session, NULL, &progress, &error));
    attune_image image = {
        .struct_size = sizeof image, .width = plan.width, .height = plan.height, .stride = plan.width * 3};
    image.pixels = malloc((size_t)image.stride * image.height);
    must(attune_session_image(session, 0, &image, &error));
    const uint8_t *centre = image.pixels + image.height / 2 * image.stride + image.width / 2 * 3;
    printf("picture: %ux%u, %s, centre pixel %u %u %u\n", image.width, image.height,
           attune_determinism_name(plan.determinism), centre[0], centre[1], centre[2]);
    free(image.pixels);
    attune_session_close(session);
    attune_model_close(model);
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: host MANIFEST MODEL PROMPT\n");
        return 2;
    }
    must(attune_open(NULL, &host, &error));
    must(attune_load(host, argv[1], &error));
    attend_once();
    draw(argv[2], argv[3]);
    attune_close(host);
    return 0;
}
