/* A safetensors file. */
#include "fuzz_tensors.h"

#include "io/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input in = input_begin(data, size);
    pgrad__tensor_set set;
    pgrad_status status = pgrad__safetensors_open(in.context, in.path, &set);
    if (status == PGRAD_OK) {
        uint64_t covered = 0;
        for (size_t i = 0; i < set.n_tensors; i++)
            covered += set.tensors[i].n_bytes;
        PROMISE(covered <= size - 8);
        read_tensors(&set);
        pgrad__tensor_set_free(&set);
    } else {
        PROMISE(is_refusal(status));
    }
    input_end(&in);
    return 0;
}
