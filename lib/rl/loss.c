#include "rl/loss.h"

#include <math.h>

#include "base/real.h"

static double clamp(double x, double low, double high)
{
    return x < low ? low : x > high ? high : x;
}

pgrad__token_loss pgrad__loss_token(uint32_t loss, double l, double l_old, double advantage,
                                    double clip_low, double clip_high)
{
    double d = l - l_old;
    double limited = clamp(d, -20.0, 20.0);
    double ratio = limited == 0.0 ? 1.0 : pgrad__exp(limited); /* exactly 1 on policy */
    pgrad__token_loss out = {.log_ratio = limited, .ratio = ratio};

    if (loss == PGRAD_LOSS_SUPERVISED) {
        out.value = -l;
        out.derivative = -1.0;
    } else if (loss == PGRAD_LOSS_REINFORCE) {
        out.value = -advantage * l;
        out.derivative = -advantage;
    } else {
        double low = 1.0 - clip_low, high = 1.0 + clip_high;
        out.value = fmax(-advantage * ratio, -advantage * clamp(ratio, low, high));
        if (advantage > 0.0 && ratio > high)
            out.clipped = 1;
        else if (advantage < 0.0 && ratio < low)
            out.clipped = -1;
        else if (d == limited)
            out.derivative = -advantage * ratio;
    }
    return out;
}

pgrad__kl_term pgrad__kl_token(uint32_t kl, double l, double l_reference, double ratio)
{
    double d = clamp(l - l_reference, -20.0, 20.0);
    pgrad__kl_term out = {0.0, 0.0};
    if (kl == PGRAD_KL_K3_RATIO) {
        out.value = ratio * (pgrad__expm1(-d) + d);
        out.derivative = ratio * d;
    } else if (kl == PGRAD_KL_K2) {
        out.value = 0.5 * d * d;
        out.derivative = d;
    }
    return out;
}
