#include "rl/schedule.h"

#include "base/real.h"

double pgrad__schedule_factor(const pgrad_optimizer_params *params, uint64_t step)
{
    const double pi = 3.14159265358979323846;
    if (step < params->warmup_steps)
        return ((double)step + 1.0) / (double)params->warmup_steps;
    if (params->schedule == PGRAD_SCHEDULE_CONSTANT)
        return 1.0;

    double p = 1.0;
    if (params->total_steps > params->warmup_steps && step < params->total_steps)
        p = (double)(step - params->warmup_steps) /
            (double)(params->total_steps - params->warmup_steps);
    double shape =
        params->schedule == PGRAD_SCHEDULE_LINEAR ? 1.0 - p : 0.5 * (1.0 + pgrad__cos(pi * p));
    return params->final_factor + (1.0 - params->final_factor) * shape;
}
