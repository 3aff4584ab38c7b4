/* The tree that every server of this benchmark shows, and what its bytes are: shared by reference.c and load.c; the
 * Python side of it is tree.py.
 *
 *   /big              4 GiB; its bytes are those of one span, again and again
 *   /small/f00000 ... 10,000 files of 100 KiB, each a piece of the span
 *   /out.N            what writers make; bytes go to a ring and nowhere else
 *
 * Every page of the span begins with its own number, so that a reader sees at once when it gets another page's bytes.
 */
#ifndef TREE_H
#define TREE_H

#include <stdint.h>

#define PAGE 4096UL
#define SPAN (128UL << 20)
#define SPAN_PAGES (SPAN / PAGE)
#define BIG_SIZE (4UL << 30)
#define SMALL_COUNT 10000UL
#define SMALL_SIZE (100UL << 10)
#define SMALL_PAGES (SMALL_SIZE / PAGE)

/* The page of the span that a page of a file shows. */
static inline uint64_t page_of_big(uint64_t page) { return page % SPAN_PAGES; }

static inline uint64_t page_of_small(uint64_t file, uint64_t page) {
    return file * SMALL_PAGES % (SPAN_PAGES - SMALL_PAGES) + page;
}

#endif
