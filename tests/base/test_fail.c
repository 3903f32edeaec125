#include "base_test.h"

#include <pthread.h>

#include "base/fail.h"

START_TEST(names_of_codes)
{
    ck_assert_str_eq(pgrad_status_name(PGRAD_OK), "OK");
    ck_assert_str_eq(pgrad_status_name(PGRAD_E_INVALID), "E_INVALID");
    ck_assert_str_eq(pgrad_status_name(PGRAD_E_FORMAT), "E_FORMAT");
    ck_assert_str_eq(pgrad_status_name(PGRAD_E_DEADLINE), "E_DEADLINE");
    ck_assert_str_eq(pgrad_status_name(PGRAD_E_INTERNAL), "E_INTERNAL");
    ck_assert_str_eq(pgrad_status_name(1), "E_UNKNOWN");
    ck_assert_str_eq(pgrad_status_name(INT32_MIN), "E_UNKNOWN");
    /* every code has a name of its own */
    static const pgrad_status codes[] = {-1, -2, -3, -4, -20, -21, -22, -23, -40, -41, -42, -60, -61, -62, -80};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        ck_assert_str_ne(pgrad_status_name(codes[i]), "E_UNKNOWN");
        for (size_t j = 0; j < i; j++)
            ck_assert_str_ne(pgrad_status_name(codes[i]), pgrad_status_name(codes[j]));
    }
}
END_TEST

static void *other_thread(void *argument)
{
    ck_assert_str_eq(pgrad_error_message(), ""); /* before its first failure */
    (void)pgrad__fail(PGRAD_E_IO, "another");
    ck_assert_str_eq(pgrad_error_message(), "another");
    return argument;
}

START_TEST(the_message_belongs_to_the_thread)
{
    pthread_t thread;
    ck_assert_int_eq(pgrad__fail(PGRAD_E_FORMAT, "tensor '%s': %d", "w", 3), PGRAD_E_FORMAT);
    ck_assert_str_eq(pgrad_error_message(), "tensor 'w': 3");
    ck_assert_int_eq(pthread_create(&thread, NULL, other_thread, NULL), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_str_eq(pgrad_error_message(), "tensor 'w': 3");
}
END_TEST

START_TEST(control_bytes_are_escaped)
{
    (void)pgrad__fail(PGRAD_E_FORMAT, "name '%s'", "a\nb\x1b[31m\x7f" "c\td");
    const char *message = pgrad_error_message();
    for (const char *p = message; *p != '\0'; p++)
        ck_assert_msg((unsigned char)*p >= 0x20 && *p != 0x7f, "%02x in the message", (unsigned char)*p);
    ck_assert_ptr_nonnull(strstr(message, "c"));
}
END_TEST

START_TEST(broken_utf8_is_escaped)
{
    (void)pgrad__fail(PGRAD_E_IO, "%s", "\xff \xc3\xa9 \xe2\x82 \xed\xa0\x80 \xf0\x9f\x98\x80 \xc3");
    ck_assert_str_eq(pgrad_error_message(),
                     "\\xff \xc3\xa9 \\xe2\\x82 \\xed\\xa0\\x80 \xf0\x9f\x98\x80 \\xc3");
}
END_TEST

START_TEST(long_messages_end_in_time)
{
    char name[4096];
    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = '\0';
    (void)pgrad__fail(PGRAD_E_FORMAT, "%s", name);
    ck_assert_uint_le(strlen(pgrad_error_message()), 511);
    ck_assert_uint_ge(strlen(pgrad_error_message()), 500);
    memset(name, '\n', sizeof name - 1);
    (void)pgrad__fail(PGRAD_E_FORMAT, "%s", name);
    ck_assert_uint_le(strlen(pgrad_error_message()), 511);
    for (size_t shift = 0; shift < 4; shift++) { /* no character is cut: the message is UTF-8 */
        for (size_t i = 0; i + 3 < sizeof name; i += 3)
            memcpy(name + i, "\xe2\x82\xac", 3);
        name[sizeof name - 4] = '\0';
        (void)pgrad__fail(PGRAD_E_FORMAT, "%.*s%s", (int)shift, "abc", name);
        const char *message = pgrad_error_message();
        const unsigned char *p = (const unsigned char *)message + strlen(message);
        size_t tail = 0;
        while ((p[-1 - (ptrdiff_t)tail] & 0xc0) == 0x80)
            tail++;
        ck_assert_msg(tail == 2 || p[-1] < 0x80, "the last character is cut");
    }
}
END_TEST

START_TEST(text_in_front)
{
    (void)pgrad__fail(PGRAD_E_IO, "no space");
    ck_assert_int_eq(pgrad__fail_in(PGRAD_E_IO, "save %d: ", 7), PGRAD_E_IO);
    ck_assert_str_eq(pgrad_error_message(), "save 7: no space");
}
END_TEST

START_TEST(messages_move_between_threads)
{
    char text[512];
    (void)pgrad__fail(PGRAD_E_IO, "of a worker");
    pgrad__message_get(text);
    (void)pgrad__fail(PGRAD_E_IO, "later");
    pgrad__message_set(text);
    ck_assert_str_eq(pgrad_error_message(), "of a worker");
}
END_TEST

START_TEST(long_paths_keep_their_end)
{
    char text[PGRAD__PATH_MAX], path[500];
    ck_assert_str_eq(pgrad__path_text(text, "short/path"), "short/path");
    memset(path, 'd', sizeof path);
    memcpy(path + sizeof path - 11, "/file.name", 11);
    const char *shown = pgrad__path_text(text, path);
    ck_assert_uint_lt(strlen(shown), PGRAD__PATH_MAX);
    ck_assert_int_eq(strncmp(shown, "...", 3), 0);
    ck_assert_str_eq(shown + strlen(shown) - 10, "/file.name");
}
END_TEST

/* Bytes that take four when they are shown leave room for what comes behind the path. */
START_TEST(escaped_paths_leave_room)
{
    static const char *const units[] = {"\xff", "\x01", "\xe2\x82\xac", "a\xe2\x82", "\xf0\x9f\x98\x80"};
    char text[PGRAD__PATH_MAX], path[700];
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
        path[0] = '\0';
        for (int i = 0; i < 150; i++)
            strcat(path, units[u]);
        strcat(path, "/config.json");
        (void)pgrad__fail(PGRAD_E_FORMAT, "%s: vocab_size: %200s expected 1 to 4194304, found %d",
                          pgrad__path_text(text, path), "", -5);
        const char *message = pgrad_error_message(), *found = strstr(message, "found -5");
        ck_assert_msg(found != NULL && found[8] == '\0', "%s", message);
        ck_assert_ptr_nonnull(strstr(message, "/config.json: vocab_size"));
        ck_assert_int_eq(strncmp(message, "...", 3), 0);
    }
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, names_of_codes);
    tcase_add_test(tests, the_message_belongs_to_the_thread);
    tcase_add_test(tests, control_bytes_are_escaped);
    tcase_add_test(tests, broken_utf8_is_escaped);
    tcase_add_test(tests, long_messages_end_in_time);
    tcase_add_test(tests, text_in_front);
    tcase_add_test(tests, messages_move_between_threads);
    tcase_add_test(tests, long_paths_keep_their_end);
    tcase_add_test(tests, escaped_paths_leave_room);
}

int main(void)
{
    return run_case("base/fail", NULL, NULL, 60, add);
}
