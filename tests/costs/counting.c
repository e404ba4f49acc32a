/* Counts what the calling thread asks of malloc. Loaded before everything else (LD_PRELOAD), and with PYTHONMALLOC=malloc every Python object comes here, too. */
#include <malloc.h>
#include <stddef.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void __libc_free(void *);

static __thread __attribute__((tls_model("initial-exec"))) long made, kept, bytes;

long counted_made(void) { return made; }   /* blocks that were asked for, growing one included */
long counted_kept(void) { return kept; }   /* of these, not yet freed */
long counted_bytes(void) { return bytes; } /* their size, as malloc rounds it */

static void *counted(void *p) {
    if (p) { made++; kept++; bytes += malloc_usable_size(p); }
    return p;
}

void *malloc(size_t n) { return counted(__libc_malloc(n)); }
void *calloc(size_t m, size_t n) { return counted(__libc_calloc(m, n)); }

void free(void *p) {
    if (p) { kept--; bytes -= malloc_usable_size(p); }
    __libc_free(p);
}

void *realloc(void *p, size_t n) {
    size_t before = p ? malloc_usable_size(p) : 0;
    void *q = __libc_realloc(p, n);
    if (q) { made++; bytes += malloc_usable_size(q) - before; if (!p) kept++; }
    else if (p && !n) { kept--; bytes -= before; }
    return q;
}
