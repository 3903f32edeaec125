/* Passes, the way of their rows through all layers, and batches of whole sequences over it. */
#include "model/pass.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/os.h"

/* ---- passes ---- */

pgrad_status pgrad__pass_create(pgrad_model *model, pgrad__pass **out)
{
    pgrad__pass *pass;
    PGRAD__TRY(pgrad__calloc(model->context, 1, sizeof *pass, &pass));
    pgrad__context_retain(model->context);
    pass->context = model->context;
    pass->arena.context = model->context;
    pass->workspace.context = model->context;
    pass->deadline = INFINITY;
    *out = pass;
    return PGRAD_OK;
}

void pgrad__pass_free(pgrad__pass *pass)
{
    if (pass == NULL)
        return;
    pgrad_context *context = pass->context;
    pgrad__workspace_free(&pass->workspace);
    pgrad__arena_free(&pass->arena);
    pgrad__free(context, pass);
    pgrad_context_free(context);
}

void pgrad__pass_set_deadline(pgrad__pass *pass, double deadline)
{
    pass->deadline = deadline;
}

pgrad_status pgrad__pass_reserve(pgrad__pass *pass, size_t floats)
{
    float *unused;
    return pgrad__workspace_reserve(&pass->workspace, floats, &unused);
}

void pgrad__pass_size_extend(pgrad__pass_size *size, const pgrad__pass_size *other)
{
    const size_t scratch = other->scratch > size->scratch ? other->scratch : size->scratch;
    if (other->arena > size->arena)
        *size = *other;
    size->scratch = scratch;
}

void pgrad__pass_count(const pgrad__pass_size *size, pgrad__arena *activations,
                       pgrad__arena *scratch, pgrad__arena *gradients)
{
    pgrad__arena_count_block(activations, 1, sizeof(pgrad__pass));
    pgrad__arena_count_block(activations, size->arena - size->logits - size->gradients, 1);
    (void)pgrad__arena_take(gradients, size->gradients, 1);
    (void)pgrad__arena_take(scratch, size->logits, 1);
    pgrad__arena_count_block(scratch, size->scratch + PGRAD__SLACK, sizeof(float));
}

static pgrad_status check_deadline(const pgrad__pass *pass)
{
    if (pass->deadline < INFINITY && pgrad__os_seconds() >= pass->deadline)
        return pgrad__fail(PGRAD_E_DEADLINE, "the time of the pass is over");
    return PGRAD_OK;
}

/* ---- the trunk ---- */

/* All of a layer but its input. */
static void lay_out_layer(const pgrad__trunk *trunk, pgrad__arena *arena, pgrad__activations *kept)
{
    const int whole = trunk->keep || trunk->stores;
    pgrad__activation_field fields[PGRAD__MAX_FIELDS];
    const size_t n = pgrad__activation_fields(&trunk->model->config, kept, fields);
    for (size_t i = 0; i < n; i++) {
        if (whole || (fields[i].at != &kept->middle && fields[i].at != &kept->lse))
            *fields[i].at =
                pgrad__arena_take(arena, fields[i].width, trunk->n_rows * sizeof(float));
    }
    if (!whole)
        kept->middle = kept->input;
}

static void lay_out_layers(pgrad__trunk *trunk, pgrad__arena *arena)
{
    const pgrad__config *config = &trunk->model->config;
    uint32_t n = trunk->keep && trunk->stored == NULL ? config->n_layers : 1;
    pgrad__activations kept = {0};
    trunk->layers = pgrad__arena_take(arena, n, sizeof *trunk->layers);
    for (uint32_t i = 0; i < n; i++) {
        kept.input = pgrad__arena_take(arena, config->n_embd, trunk->n_rows * sizeof(float));
        if (i == 0 || !trunk->recompute)
            lay_out_layer(trunk, arena, &kept);
        if (trunk->layers != NULL)
            trunk->layers[i] = kept;
    }
}

/* What only a backward pass needs. */
static void lay_out_backward(pgrad__trunk *trunk, pgrad__arena *arena)
{
    const pgrad__config *config = &trunk->model->config;
    size_t n = trunk->n_rows, row = n * sizeof(float), query = pgrad__query_width(config);
    trunk->d_stream = pgrad__arena_take(arena, config->n_embd, row);
    trunk->d_normed = pgrad__arena_take(arena, config->n_embd, row);
    trunk->d_hidden = pgrad__arena_take(arena, query > config->n_ff ? query : config->n_ff, row);
    trunk->d_qkv = pgrad__arena_take(arena, pgrad__qkv_width(config), row);
    trunk->remaining_tokens = pgrad__arena_take(arena, n, sizeof *trunk->remaining_tokens);
    trunk->remaining_sequences =
        pgrad__arena_take(arena, trunk->n_sequences, sizeof *trunk->remaining_sequences);
    trunk->remaining_index =
        pgrad__arena_take(arena, trunk->n_sequences, sizeof *trunk->remaining_index);
    trunk->remaining_stored =
        pgrad__arena_take(arena, trunk->stored != NULL ? n : 0, sizeof *trunk->remaining_stored);
}

void pgrad__trunk_lay_out(pgrad__trunk *trunk, pgrad__arena *arena)
{
    const pgrad__config *config = &trunk->model->config;
    size_t n = trunk->n_rows, row = n * sizeof(float);
    trunk->positions = pgrad__arena_take(arena, n, sizeof *trunk->positions);
    trunk->spans = pgrad__arena_take(arena, trunk->n_spans, sizeof *trunk->spans);
    trunk->runs = pgrad__arena_take(arena, trunk->n_runs, sizeof *trunk->runs);
    trunk->first_page = pgrad__arena_take(arena, trunk->n_spans, sizeof *trunk->first_page);
    trunk->pages = pgrad__arena_take(arena, trunk->n_pages, sizeof *trunk->pages);
    trunk->page_scratch = pgrad__arena_take(arena, trunk->page_scratch_floats, sizeof(float));
    trunk->store = pgrad__arena_take(arena, trunk->stores ? n : 0, sizeof *trunk->store);
    lay_out_layers(trunk, arena);
    trunk->output = pgrad__arena_take(arena, trunk->keep ? config->n_embd : 0, row);
    if (!trunk->keep && trunk->layers != NULL)
        trunk->output = trunk->layers[0].input;
    trunk->normed = pgrad__arena_take(arena, config->n_embd, row);
    trunk->hidden = pgrad__arena_take(arena, config->n_ff, row);
    if (trunk->keep)
        lay_out_backward(trunk, arena);
}

void pgrad__trunk_set_pages(pgrad__trunk *trunk)
{
    for (size_t i = 0; i < trunk->n_spans; i++) {
        pgrad__attention_span *span = &trunk->spans[i];
        unsigned char **pages = trunk->pages + trunk->first_page[i];
        span->pages = (const unsigned char *const *)pages;
        trunk->runs[i] =
            (pgrad__kv_run){span->first_row, span->n_rows, span->first_position, pages};
    }
}

pgrad_status pgrad__check_tokens(const pgrad_model *model, const pgrad_token *tokens, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= model->config.n_vocab)
            return pgrad__fail(PGRAD_E_INVALID, "token %zu: id %d is outside the vocabulary of %u",
                               i, tokens[i], model->config.n_vocab);
    }
    return PGRAD_OK;
}

void pgrad__trunk_embed(const pgrad__trunk *trunk, float *output)
{
    const pgrad_model *model = trunk->model;
    const pgrad__tensor *positions = model->stem->positions;
    pgrad__embedding_forward(model->context, &model->stem->embedding->matrix,
                             positions == NULL ? NULL : positions->data, trunk->tokens,
                             trunk->positions, trunk->n_rows, output);
}

pgrad_status pgrad__trunk_forward(pgrad__trunk *trunk)
{
    pgrad_model *model = trunk->model;
    pgrad__trunk_embed(trunk, trunk->layers[0].input);
    for (uint32_t i = 0; i < model->config.n_layers; i++) {
        PGRAD__TRY(pgrad__check_cancel(model->context));
        PGRAD__TRY(check_deadline(trunk->pass));
        int last = i + 1 == model->config.n_layers;
        pgrad__activations *kept = pgrad__trunk_layer(trunk, i);
        float *output = trunk->keep && !last ? trunk->layers[i + 1].input : trunk->output;
        PGRAD__TRY(pgrad__block_forward(trunk, i, kept, output));
        if (trunk->stores)
            pgrad__store_layer(trunk, i, kept, output);
        for (size_t page = 0; page < trunk->n_pages && !last; page++)
            trunk->pages[page] += trunk->page_layer_stride;
    }
    return PGRAD_OK;
}

/* ---- batches of whole sequences ---- */

static pgrad_status check_batch(const pgrad_model *model, const pgrad__batch *batch)
{
    size_t row = 0;
    for (size_t i = 0; i < batch->n_sequences; i++) {
        const pgrad__attention_sequence *sequence = &batch->sequences[i];
        if (sequence->prefix > i ||
            (sequence->prefix > 0 && batch->sequences[sequence->prefix - 1].prefix > 0))
            return pgrad__fail(PGRAD_E_INTERNAL, "sequence %zu: its prefix is number %u", i,
                               sequence->prefix);
        const uint32_t n_prefix = pgrad__n_prefix(batch->sequences, i);
        if (sequence->n_rows > model->n_context || n_prefix > model->n_context - sequence->n_rows)
            return pgrad__fail(PGRAD_E_LIMIT,
                               "sequence %zu: %u tokens behind %u, more than the context of %u", i,
                               sequence->n_rows, n_prefix, model->n_context);
        if (sequence->first_row != row || sequence->n_rows == 0)
            return pgrad__fail(PGRAD_E_INTERNAL,
                               "sequence %zu: expected rows from %zu on, found %u from "
                               "%zu on",
                               i, row, sequence->n_rows, sequence->first_row);
        row += sequence->n_rows;
    }
    if (row != batch->n_rows)
        return pgrad__fail(PGRAD_E_INTERNAL, "expected sequences over %zu rows, found %zu",
                           batch->n_rows, row);
    for (size_t i = 0; i < batch->n_targets; i++) {
        if (batch->target_rows[i] >= batch->n_rows)
            return pgrad__fail(PGRAD_E_INTERNAL, "target %zu: row %u of %zu", i,
                               batch->target_rows[i], batch->n_rows);
    }
    PGRAD__TRY(pgrad__check_tokens(model, batch->tokens, batch->n_rows));
    return batch->targets == NULL ? PGRAD_OK
                                  : pgrad__check_tokens(model, batch->targets, batch->n_targets);
}

/* A page of one layer: all kv heads. */
static size_t page_floats(const pgrad_model *model)
{
    return model->config.n_kv_heads *
           pgrad__kv_block_floats(model->kernels, model->config.head_dim);
}

static void lay_out_batch(pgrad__arena *arena, void *user)
{
    pgrad__batch_pass *plan = user;
    pgrad__trunk_lay_out(&plan->trunk, arena);
    pgrad__head_lay_out(&plan->head, arena, plan->with_logits, plan->trunk.keep);
    size_t floats = plan->borrow ? pgrad__gradients_borrowed(plan->trunk.model) : 0;
    float *block = pgrad__arena_take(arena, floats, sizeof(float));
    plan->gradients.block = plan->borrow ? block : NULL;
}

/* Pages in front of a sequence that it shares with its prefix: the full ones. */
static size_t shared_pages(const pgrad__batch *batch, size_t i)
{
    return pgrad__n_prefix(batch->sequences, i) / PGRAD__KEY_TILE;
}

static size_t all_pages(const pgrad__batch *batch, size_t i)
{
    return pgrad__kv_pages((size_t)pgrad__n_prefix(batch->sequences, i) +
                           batch->sequences[i].n_rows);
}

/* The rows behind the last full page of a prefix go into the first page of each sequence's own. */
static void add_border_runs(pgrad__trunk *trunk, const pgrad__batch *batch)
{
    size_t run = trunk->n_spans;
    for (size_t i = 0; i < batch->n_sequences; i++) {
        const uint32_t n_prefix = pgrad__n_prefix(batch->sequences, i);
        const uint32_t border = n_prefix % PGRAD__KEY_TILE;
        if (border == 0)
            continue;
        const pgrad__attention_sequence *prefix = &batch->sequences[batch->sequences[i].prefix - 1];
        trunk->runs[run++] = (pgrad__kv_run){.first_row = prefix->first_row + n_prefix - border,
                                             .n_rows = border,
                                             .first_position = n_prefix - border,
                                             .pages = trunk->runs[i].pages};
    }
}

static void fill_positions(pgrad__trunk *trunk, const pgrad__batch *batch)
{
    for (size_t i = 0; i < batch->n_sequences; i++) {
        const pgrad__attention_sequence *sequence = &batch->sequences[i];
        const uint32_t n_prefix = pgrad__n_prefix(batch->sequences, i);
        for (uint32_t j = 0; j < sequence->n_rows; j++)
            trunk->positions[sequence->first_row + j] = n_prefix + j;
    }
}

/* One span a sequence over pages of scratch. */
static void fill_pages(pgrad__trunk *trunk, const pgrad__batch *batch)
{
    size_t page = 0, floats = page_floats(trunk->model);
    float *own = trunk->page_scratch;
    for (size_t i = 0; i < batch->n_sequences; i++) {
        const pgrad__attention_sequence *sequence = &batch->sequences[i];
        const uint32_t n_prefix = pgrad__n_prefix(batch->sequences, i);
        const size_t shared = shared_pages(batch, i), n_pages = all_pages(batch, i);
        trunk->spans[i] = (pgrad__attention_span){.first_row = sequence->first_row,
                                                  .n_rows = sequence->n_rows,
                                                  .first_position = n_prefix};
        trunk->first_page[i] = page;
        for (size_t j = 0; j < n_pages; j++, page++) {
            if (j < shared) {
                trunk->pages[page] = trunk->pages[trunk->first_page[sequence->prefix - 1] + j];
                continue;
            }
            trunk->pages[page] = (unsigned char *)own;
            own += floats;
        }
    }
    pgrad__trunk_set_pages(trunk);
    add_border_runs(trunk, batch);
    /* Slots behind a sequence's end stay zero: what an earlier, perhaps diverged, pass left must
     * not meet a probability of zero. */
    memset(trunk->page_scratch, 0, trunk->page_scratch_floats * sizeof(float));
}

static void fill_trunk(pgrad__trunk *trunk, const pgrad__batch *batch)
{
    fill_positions(trunk, batch);
    if (trunk->stored == NULL)
        fill_pages(trunk, batch);
}

/* Everything about the batch but what its arrays hold. */
static void measure_batch(pgrad__trunk *trunk, const pgrad__batch *batch)
{
    trunk->tokens = batch->tokens;
    trunk->n_rows = batch->n_rows;
    trunk->sequences = batch->sequences;
    trunk->n_sequences = batch->n_sequences;
    trunk->stored = batch->activations;
    trunk->n_spans = trunk->n_runs = trunk->n_pages = trunk->page_scratch_floats = 0;
    if (trunk->stored != NULL) /* keys and values are read from its rows */
        return;
    trunk->n_spans = trunk->n_runs = batch->n_sequences;
    size_t own_pages = 0;
    for (size_t i = 0; i < batch->n_sequences; i++) {
        trunk->n_runs += pgrad__n_prefix(batch->sequences, i) % PGRAD__KEY_TILE > 0;
        trunk->n_pages += all_pages(batch, i);
        own_pages += all_pages(batch, i) - shared_pages(batch, i);
    }
    trunk->page_scratch_floats = own_pages * page_floats(trunk->model) + PGRAD__SLACK;
}

void pgrad__trunk_set_batch(pgrad__trunk *trunk, const pgrad__batch *batch)
{
    measure_batch(trunk, batch);
    fill_trunk(trunk, batch);
}

static void describe_batch(pgrad__batch_pass *plan, pgrad_model *model, const pgrad__batch *batch)
{
    plan->trunk.model = plan->head.model = model;
    measure_batch(&plan->trunk, batch);
    plan->head.batch = batch;
}

static size_t batch_scratch(const pgrad__batch_pass *plan, const pgrad__machine *machine)
{
    const size_t trunk = pgrad__trunk_scratch(&plan->trunk, machine);
    const size_t head = pgrad__head_scratch(&plan->head, machine, plan->trunk.keep);
    return trunk > head ? trunk : head;
}

pgrad_status pgrad__batch_pass_plan(pgrad__batch_pass *plan, pgrad_model *model, pgrad__pass *pass,
                                    const pgrad__batch *batch)
{
    PGRAD__TRY(check_batch(model, batch));
    describe_batch(plan, model, batch);
    plan->trunk.pass = plan->head.pass = pass;
    PGRAD__TRY(pgrad__arena_plan(&pass->arena, lay_out_batch, plan));
    fill_trunk(&plan->trunk, batch);
    const pgrad__machine machine = pgrad__machine_of(model->context);
    return pgrad__pass_reserve(pass, batch_scratch(plan, &machine));
}

pgrad_status pgrad__batch_pass_measure(pgrad__batch_pass *plan, pgrad_model *model,
                                       const pgrad__batch *batch, uint32_t n_workers,
                                       pgrad__pass_size *size)
{
    const pgrad__machine machine = {model->kernels, n_workers};
    pgrad__pass_size own = {0};
    describe_batch(plan, model, batch);
    PGRAD__TRY(pgrad__arena_measure(lay_out_batch, plan, &own.arena));
    own.logits = plan->head.chunk * model->config.n_vocab * sizeof(float);
    own.gradients = plan->borrow ? pgrad__gradients_borrowed(model) * sizeof(float) : 0;
    PGRAD__TRY(pgrad__calloc(model->context, batch->n_sequences, sizeof *plan->trunk.spans,
                             &plan->trunk.spans));
    for (size_t i = 0; i < batch->n_sequences; i++)
        plan->trunk.spans[i].n_rows = batch->sequences[i].n_rows;
    own.scratch = batch_scratch(plan, &machine);
    pgrad__pass_size_extend(size, &own);
    pgrad__free(model->context, plan->trunk.spans);
    return PGRAD_OK;
}

pgrad_status pgrad__score_size(pgrad_model *model, const pgrad__batch *batch, uint32_t n_workers,
                               pgrad__pass_size *size)
{
    pgrad__batch_pass plan = {.with_logits = 1};
    return pgrad__batch_pass_measure(&plan, model, batch, n_workers, size);
}

pgrad_status pgrad__model_score(pgrad_model *model, pgrad__pass *pass, const pgrad__batch *batch,
                                float *logprob, float *entropy)
{
    pgrad__batch_pass plan = {.with_logits = 1};
    if (batch->n_targets == 0)
        return PGRAD_OK;
    PGRAD__TRY(pgrad__batch_pass_plan(&plan, model, pass, batch));
    PGRAD__TRY(pgrad__trunk_forward(&plan.trunk));
    pgrad__head_gather(&plan.head, plan.trunk.output);
    return pgrad__head_score(&plan.head, logprob, entropy);
}

pgrad_status pgrad__model_forward_logits(pgrad_model *model, pgrad__pass *pass,
                                         const pgrad__batch *batch, float *logits)
{
    pgrad__batch_pass plan = {0};
    if (batch->n_targets == 0)
        return PGRAD_OK;
    PGRAD__TRY(pgrad__batch_pass_plan(&plan, model, pass, batch));
    PGRAD__TRY(pgrad__trunk_forward(&plan.trunk));
    pgrad__head_gather(&plan.head, plan.trunk.output);
    return pgrad__head_logits(&plan.head, 0, batch->n_targets, logits);
}
