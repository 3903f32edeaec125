/* Merging of partly filled step reports. */
#ifndef PGRAD_RL_METRICS_H
#define PGRAD_RL_METRICS_H

#include <policygrad/metrics.h>

/* Named values that a report has room for. */
enum { PGRAD__N_NAMED = sizeof((pgrad_step_report *)0)->named / sizeof(pgrad_named_value) };

/* Copies every number of `part` that is filled (not NaN; named values appended or replaced by name)
 * into the caller's report, within its struct_size. */
void pgrad__report_merge(pgrad_step_report *report, const pgrad_step_report *part);

/* E_INVALID for a struct_size that no report has; NULL is fine. */
pgrad_status pgrad__report_check(const pgrad_step_report *report);

#endif
