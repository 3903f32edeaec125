/* Sizes and marks of a checkpoint file, for its writer and its reader. */
#ifndef PGRAD_IO_CHECKPOINT_LAYOUT_H
#define PGRAD_IO_CHECKPOINT_LAYOUT_H

#define MAGIC "PGRADCKP"     /* then the version, and 4 bytes that are 0 */
#define END_MAGIC "PGRADEND" /* the last bytes of a file */

enum {
    HEADER_SIZE = 16,
    CHUNK_HEAD = 12,  /* bytes in it, bytes stored, CRC of these two and what is stored */
    TABLE_ENTRY = 36, /* kind, length of the name, offset, stored, size, CRC; the name */
    TRAILER_SIZE = 32 /* offset of the table, parts, its CRC, library, CRC of these; END_MAGIC */
};

#endif
