/* The table of the set this file is built for. */
#include "kernel/vec_functions.h"

#define TABLE_PASTE(set) pgrad__vector_ops_##set
#define TABLE_EXPAND(set) TABLE_PASTE(set)

const pgrad__vector_ops TABLE_EXPAND(PGRAD__SET) = {
    .layernorm_row = PGRAD__VEC(layernorm_row),
    .layernorm_row_backward = PGRAD__VEC(layernorm_row_backward),
    .rmsnorm_row = PGRAD__VEC(rmsnorm_row),
    .rmsnorm_row_backward = PGRAD__VEC(rmsnorm_row_backward),
    .norm_columns_backward = PGRAD__VEC(norm_columns_backward),
    .activation = PGRAD__VEC(activation),
    .activation_backward = PGRAD__VEC(activation_backward),
    .gated = PGRAD__VEC(gated),
    .gated_backward = PGRAD__VEC(gated_backward),
    .add = PGRAD__VEC(add),
    .scale = PGRAD__VEC(scale),
    .rope_head = PGRAD__VEC(rope_head),
    .softmax_row_stats = PGRAD__VEC(softmax_row_stats),
    .softmax_row_grad = PGRAD__VEC(softmax_row_grad),
    .attention_row = PGRAD__VEC(attention_row),
    .attention_row_recompute = PGRAD__VEC(attention_row_recompute),
    .attention_row_backward = PGRAD__VEC(attention_row_backward),
    .dot = PGRAD__VEC(dot),
    .exp = PGRAD__VEC(exp),
    .panel_sumsq = PGRAD__VEC(panel_sumsq),
    .block_sumsq = PGRAD__VEC(block_sumsq),
    .all_finite = PGRAD__VEC(all_finite),
    .adam = PGRAD__VEC(adam),
    .sgd = PGRAD__VEC(sgd),
    .random_bits = PGRAD__VEC(random_bits),
    .bf16_widen = PGRAD__VEC(bf16_widen),
    .bf16_round = PGRAD__VEC(bf16_round),
    .q8_widen = PGRAD__VEC(q8_widen),
    .q8_round = PGRAD__VEC(q8_round),
    .widen_q8_0 = PGRAD__VEC(widen_q8_0),
    .pack_transposed = PGRAD__VEC(pack_transposed),
    .pack_straight = PGRAD__VEC(pack_straight),
    .f16_widen = PGRAD__VEC(f16_widen),
    .f16_narrow = PGRAD__VEC(f16_narrow),
    .bf16_narrow = PGRAD__VEC(bf16_narrow),
};
