#include "base_test.h"

#include "base/hashmap.h"

enum { N = 20000 };

/* Any bytes are a key, none too; the first value stays. */
START_TEST(puts_and_finds)
{
    static char keys[N][8];
    pgrad_context *context = make_context(1, PGRAD_KERNELS_AUTO);
    pgrad__hashmap map = {.context = context};
    uint32_t value = 7;
    int existing = 7;
    ck_assert_int_eq(pgrad__hashmap_get(&map, "a", 1, &value), 0);
    for (uint32_t i = 0; i < N; i++) {
        memcpy(keys[i], &i, sizeof i); /* with NULs */
        OK(pgrad__hashmap_put(&map, keys[i], sizeof i, i + 1, &existing));
        ck_assert_int_eq(existing, 0);
    }
    OK(pgrad__hashmap_put(&map, "", 0, 3, NULL));
    OK(pgrad__hashmap_put(&map, keys[5], 4, 99, &existing));
    ck_assert_int_eq(existing, 1);
    ck_assert_uint_eq(map.count, N + 1);
    for (uint32_t i = 0; i < N; i++) {
        ck_assert_int_eq(pgrad__hashmap_get(&map, keys[i], sizeof i, &value), 1);
        ck_assert_uint_eq(value, i + 1);
        ck_assert_int_eq(pgrad__hashmap_get(&map, keys[i], 5, &value), 0);
    }
    ck_assert_int_eq(pgrad__hashmap_get(&map, NULL, 0, &value), 1);
    ck_assert_uint_eq(value, 3);
    pgrad__hashmap_free(&map);
    pgrad_context_free(context);
}
END_TEST

START_TEST(sizes_beyond_the_limit)
{
    pgrad_context *context = make_context(1, PGRAD_KERNELS_AUTO);
    pgrad__hashmap map;
    FAILS(PGRAD_E_LIMIT, "a table of 18446744073709551615 keys is too large",
          pgrad__hashmap_init(&map, context, SIZE_MAX));
    OK(pgrad__hashmap_init(&map, context, 100));
    FAILS(PGRAD_E_LIMIT, "a key of 4294967296 bytes is too long",
          pgrad__hashmap_put(&map, "a", (size_t)UINT32_MAX + 1, 1, NULL));
    ck_assert_uint_eq(map.count, 0);
    pgrad__hashmap_free(&map);
    pgrad_context_free(context);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, puts_and_finds);
    tcase_add_test(tests, sizes_beyond_the_limit);
}

int main(void)
{
    return run_case("base/hashmap", NULL, NULL, 60, add);
}
