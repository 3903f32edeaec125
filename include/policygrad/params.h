/* Generic access to the option structs.
 *
 * Every `pgrad_X_params` starts with `size_t struct_size`. Call `pgrad_X_params_init(&p, sizeof p)`:
 * it writes the size and this library's defaults. Passing NULL where a params pointer is asked for
 * means all defaults. A struct shorter than the library's (an older program) gets defaults for what
 * it lacks; a longer one (a newer program) is accepted when the part the library does not know is
 * zero, and refused with E_UNSUPPORTED otherwise.
 *
 * Names are the struct's, without prefix and suffix: "sampler" for pgrad_sampler_params.
 *
 * Threads: safe; the struct itself belongs to the caller. */
#ifndef POLICYGRAD_PARAMS_H
#define POLICYGRAD_PARAMS_H

#include <policygrad/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Gives this library's size of a params, info or report struct, 0 for a name it does not know.
 * Bindings compare it with their own. */
PGRAD_API size_t pgrad_struct_size(const char *params_name);

/* Sets one field from text, for command lines and JSON: pgrad_params_set("sampler", &p,
 * "temperature", "0.8"). Numbers are read in the C locale.
 * Errors: E_INVALID for an unknown struct or field (the message names the field that is near), a
 * value that does not parse or is out of range, and for fields that hold pointers. */
PGRAD_API pgrad_status pgrad_params_set(const char *params_name, void *params, const char *field,
                                        const char *value);

/* Sets the fields that a named profile has a value for, and leaves the others: what another system does by
 * default, under a name that says which version. A profile never changes; docs/profiles.md lists them and
 * how they differ from what they are named after. "trl-1.10": GRPO as TRL's GRPOConfig has it, in the
 * structs sampler, rollout, advantage, objective, optimizer (whose linear schedule wants total_steps) and
 * train; "trl-1.10-rloo" and "trl-1.10-sft": RLOOConfig and SFTConfig. A struct that a profile says nothing
 * of is left as it is, and so is one of which not all can be set.
 * Errors: E_INVALID for an unknown struct or profile, E_UNSUPPORTED for a struct that ends before a field. */
PGRAD_API pgrad_status pgrad_params_profile(const char *params_name, void *params, const char *profile);

/* Writes what is in force as one JSON object: every field's name and value, pointers left out.
 * params may be NULL for the defaults. *length is the text's length without the closing NUL.
 * Errors: E_INVALID for an unknown struct; E_BUFFER when capacity is at most *length, which then is
 * the length needed; nothing is written. json may be NULL when capacity is 0. */
PGRAD_API pgrad_status pgrad_params_describe(const char *params_name, const void *params, char *json,
                                             size_t capacity, size_t *length);

#ifdef __cplusplus
}
#endif
#endif
