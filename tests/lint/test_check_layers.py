#!/usr/bin/env python3
"""check_layers.py finds what it is there for: each offence in a made-up tree, and none in one that keeps the rules."""
import pathlib
import tempfile
import unittest

import check_layers

CLEAN = {
    "lib/base/a.h": "void pgrad__low(int x);\nextern const int pgrad__numbers[2];\nstruct pgrad__thing;\n",
    "lib/base/a.c": '#include "base/a.h"\n\n#include <string.h>\n\nconst int pgrad__numbers[2] = {1, 2};\n\n'
                    "void pgrad__low(int x)\n{\n    (void)x;\n}\n",
    "lib/base/os_posix.c": "#include <unistd.h>\n",
    "lib/io/file.c": "#include <fcntl.h>\n#include <unistd.h>\n",
    "lib/io/zstream.c": "#include <zlib.h>\n",
    "lib/kernel/k.c": '#include <policygrad/types.h>\n\n#include "base/a.h"\n\n/* pgrad__nowhere(), "exit(1)" */\n'
                      "static void both(void)\n{\n    pgrad__low(pgrad__numbers[0]);\n    pgrad__vec_sum_skx(0);\n}\n\n"
                      "int pgrad_make(int (*fn)(int),\n               struct pgrad__thing *thing)\n{\n    return 0;\n}\n",
    "lib/kernel/vec_a.c": "#include <immintrin.h>\n",
    "include/policygrad/a.h": "/* What it is.\n *\n * More. */\n\nint pgrad_a(void); /* one */\n"
                              "int pgrad_b(void);\nint pgrad_c(void);\n",  # 4 lines of 6, and an empty one
}

# A file's text and what is said about it.
OFFENCES = [
    ("lib/base/b.c", '#include "kernel/k.h"\n', "base may not include kernel/k.h"),
    ("lib/base/b.c", "#include <kernel/k.h>\n", "included by \"\""),
    ("lib/base/b.c", "#include <base/a.h>\n", "included by \"\""),
    ("lib/base/b.c", '#include "base/../kernel/k.h"\n', "by its layer"),
    ("lib/base/b.c", '#include "../kernel/k.h"\n', "by its layer"),
    ("lib/base/b.c", '#  include "a.h"\n', "by its layer"),
    ("lib/base/b.c", "#include HEADER\n", "an #include is"),
    ("lib/base/b.c", "static void f(void)\n{\n    pgrad_make(0, 0);\n}\n", "base may not use pgrad_make, which is of kernel"),
    ("lib/base/b.c", "int pgrad_make(int (*fn)(int), void *thing);\n", "base may not use pgrad_make, which is of kernel"),
    ("lib/base/b.c", "static int (*const CALL)(void) = pgrad_make;\n", "base may not use pgrad_make"),
    ("lib/io/b.c", "void f(void)\n{\n    pgrad__vec_sum_skx(0);\n}\n", "io may not use pgrad__vec_sum_skx, which is of kernel"),
    ("lib/kernel/b.c", "static void f(void)\n{\n    pgrad__nowhere();\n}\n", "pgrad__nowhere() is defined nowhere"),
    ("lib/kernel/b.c", "void pgrad__low(int x)\n{\n}\n", "pgrad__low is defined in"),
    ("lib/rl/b.c", "#include <unistd.h>\n", "<unistd.h> is neither"),
    ("lib/rl/b.c", "#include <sys/stat.h>\n", "<sys/stat.h> is neither"),
    ("lib/rl/b.c", "#include <curl/curl.h>\n", "<curl/curl.h> is neither"),
    ("lib/io/json.c", "#include <unistd.h>\n", "<unistd.h> is neither"),
    ("lib/kernel/b.c", "#include <immintrin.h>\n", "<immintrin.h> is neither"),
    ("lib/io/b.c", "#include <zlib.h>\n", "only lib/io/zstream.c may include <zlib.h>"),
    ("lib/rl/b.c", "static void f(void)\n{\n    printf (\"\");\n}\n", "printf() has no place"),
    ("lib/rl/b.c", "/*\n" + "\n" * 800 + "*/\n", "lines, at most"),
    ("lib/rl/b.c", "/* " + "x" * 100 + " */\n", "columns"),
    ("include/policygrad/b.h", "/* one */\n\n\nint x;\n", "50 % of its lines"),
    ("include/policygrad/b.h", "/* one\n   two */ int x;\nint y;\nint z;\n", "50 % of its lines"),
    ("include/policygrad.h", "", "0 % of its lines"),
]


class CheckLayers(unittest.TestCase):
    def found(self, files):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for name, text in files.items():
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return list(check_layers.offences(root))

    def test_nothing_in_a_clean_tree(self):
        self.assertEqual(self.found(CLEAN), [])

    def test_each_offence(self):
        for name, text, said in OFFENCES:
            with self.subTest(text=text[:60]):
                found = self.found({**CLEAN, name: text})
                self.assertTrue(found)
                for offence in found:
                    self.assertIn(said, offence)


if __name__ == "__main__":
    unittest.main()
