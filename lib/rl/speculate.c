/* Drafts by prompt lookup: where the last ids of a sequence stood before, what followed them there.
 * They only decide which rows a pass computes: a row's bits, and a draw from it, do not depend on
 * its company, so the tokens are the same with drafts and without. */
#include "rl/generator.h"

enum {
    LONGEST_NGRAM = 3,
    SHORTEST_NGRAM = 2,
    LONGEST_DRAFT = 7, /* with the next token: what the products of few rows take at once */
    MEMORY = 64        /* drafted ids that a slot's rate looks back on */
};

/* What a row more costs, in parts of what a step costs per slot. One slot waits for the weights,
 * which are read once for all rows; with more, arithmetic decides (SmolLM2-135M: a step of 8 rows
 * takes 1.6 times as long as one of 1, a step of 32 rows 3.1 times as long as one of 8). */
static double cost_of_row(uint32_t n_active)
{
    return (double)n_active / ((double)n_active + 4.0);
}

void pgrad__draft_reset(pgrad__slot *slot)
{
    slot->draft_end = 0;
    slot->drafted = 8; /* none of which came true: the first drafts are not fed */
    slot->accepted = 0;
    slot->speculates = slot->without_drafts = 0;
}

/* With room between on and off, so that a rate at the border does not switch with every token. */
static int pays(pgrad__slot *slot, uint32_t n_active)
{
    const double rate = (double)slot->accepted / (double)slot->drafted;
    const double cost = cost_of_row(n_active);
    slot->speculates = rate > cost + (slot->speculates ? 0.05 : 0.15);
    return slot->speculates;
}

int pgrad__drafts_pay(const pgrad__generation *g)
{
    struct pgrad__generator *generator = g->generator;
    int all = 1;
    if (g->params.speculate != PGRAD_SPECULATE_AUTO)
        return g->params.speculate == PGRAD_SPECULATE_ON;
    for (uint32_t k = 0; k < generator->n_active; k++)
        all &= pays(&generator->slots[k], generator->n_active);
    return all;
}

uint32_t pgrad__draft_share(uint32_t n_active)
{
    const uint32_t share = PGRAD__MAX_EXTRA_ROWS / n_active;
    return share < LONGEST_DRAFT ? (share > 0 ? share : 1) : LONGEST_DRAFT;
}

static pgrad_token id_at(const pgrad__token_chain *chain, size_t i)
{
    return i < chain->n[0] ? chain->part[0][i] : chain->part[1][i - chain->n[0]];
}

/* Where the last n ids stood before, the latest such place: the index behind them; 0: nowhere. */
static size_t look_up(const pgrad__token_chain *chain, size_t n)
{
    const size_t length = chain->n[0] + chain->n[1];
    const pgrad_token last = id_at(chain, length - 1);
    for (size_t end = length - 1; end >= n; end--) {
        size_t same = 0;
        if (id_at(chain, end - 1) != last)
            continue;
        while (same < n && id_at(chain, end - 1 - same) == id_at(chain, length - 1 - same))
            same++;
        if (same == n)
            return end;
    }
    return 0;
}

/* Writes a draft of n ids behind the sequence's own. */
static void make_draft(const pgrad__generation *g, pgrad__slot *slot, uint32_t n)
{
    const pgrad__sequence *sequence = &g->rollout->sequences[slot->sequence];
    pgrad_token *ids = pgrad__rollout_ids(g->rollout, slot->sequence);
    const pgrad__token_chain chain =
        pgrad__chain_of(g->rollout, slot->sequence, sequence->n_tokens);
    const size_t length = chain.n[0] + chain.n[1];
    size_t from = 0;
    for (size_t gram = LONGEST_NGRAM; from == 0 && gram >= SHORTEST_NGRAM; gram--)
        if (length > gram)
            from = look_up(&chain, gram);
    slot->draft_end = 0;
    if (from == 0)
        return;
    /* May run into what it writes: a loop goes on. */
    for (uint32_t k = 0; k < n; k++)
        ids[sequence->n_tokens + k] =
            from + k < length ? id_at(&chain, from + k) : ids[from + k - chain.n[0]];
    slot->draft_end = sequence->n_tokens + n;
    slot->drafted += n;
    if (slot->drafted > MEMORY) {
        slot->drafted /= 2;
        slot->accepted /= 2;
    }
}

uint32_t pgrad__draft(const pgrad__generation *g, pgrad__slot *slot, uint32_t room)
{
    const pgrad__sequence *sequence = &g->rollout->sequences[slot->sequence];
    /* The last token is not drafted: nothing is drawn behind it. */
    const uint32_t left = pgrad__token_limit(g, sequence->group) - sequence->n_tokens - 1;
    const uint32_t most = left < LONGEST_DRAFT ? left : LONGEST_DRAFT;
    if (g->params.speculate == PGRAD_SPECULATE_OFF || slot->without_drafts || most == 0)
        return slot->draft_end = 0;
    if (slot->draft_end <= sequence->n_tokens)
        make_draft(g, slot, most);
    if (slot->draft_end <= sequence->n_tokens)
        return 0;
    const uint32_t drafted = slot->draft_end - sequence->n_tokens;
    return drafted < room ? drafted : room;
}

int pgrad__draft_came_true(const pgrad__generation *g, pgrad__slot *slot, pgrad_token token)
{
    const uint32_t t = g->rollout->sequences[slot->sequence].n_tokens;
    if (t >= slot->draft_end)
        return 0;
    if (pgrad__rollout_ids(g->rollout, slot->sequence)[t] != token) {
        slot->draft_end = 0;
        return 0;
    }
    slot->accepted++;
    return 1;
}
