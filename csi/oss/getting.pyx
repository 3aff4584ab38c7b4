# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""GETs of objects in C: the head made and signed, the answer received where it is wanted and checked.

What is accepted is a 200 of exactly the length and the ETag that were asked for and, where OSS tells one, with its
CRC64; for a range a 206 that begins where it should. Everything else is unusual, and left to who can tell what it means
(`csi/oss/reading.py`, which makes the request again).
No wait is unbounded: the times are those of `csi/oss/speaking.py`.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

from csi.oss.digests cimport SHA1, SHA256, Hash, add, begin, crc64, end, end_keyed, set_key
from csi.oss.wire cimport DONE, Exchange, GONE, exchange, now, prepare

cdef extern from "strings.h" nogil:
    int strncasecmp(const char *one, const char *other, size_t size)

cdef enum:
    LONGEST_HEAD = 8192
    SCRATCH = 16384


cdef struct Writer:
    char* data
    size_t size
    size_t room
    bint full


cdef inline void put(Writer* out, const char* data, size_t size) noexcept nogil:
    if out.size + size > out.room:
        out.full = True
        return
    memcpy(out.data + out.size, data, size)
    out.size += size


cdef inline bint is_plain(char letter) noexcept nogil:
    return (
        c"a" <= letter <= c"z" or c"A" <= letter <= c"Z" or c"0" <= letter <= c"9"
        or letter == c"/" or letter == c"." or letter == c"-" or letter == c"_" or letter == c"~"
    )


cdef void put_quoted(Writer* out, const char* data, size_t size) noexcept nogil:
    """As `quote_bytes` with a safe '/'."""
    cdef const char* digits = "0123456789ABCDEF"
    cdef char coded[3]
    cdef size_t at, first = 0
    coded[0] = c"%"
    for at in range(size):
        if not is_plain(data[at]):
            put(out, data + first, at - first)
            coded[1] = digits[<uint8_t>data[at] >> 4]
            coded[2] = digits[<uint8_t>data[at] & 15]
            put(out, coded, 3)
            first = at + 1
    put(out, data + first, size - first)


cdef void put_number(Writer* out, uint64_t number) noexcept nogil:
    cdef char digits[20]
    cdef int at = 20
    while True:
        at -= 1
        digits[at] = <char>(c"0" + number % 10)
        number //= 10
        if number == 0:
            break
    put(out, digits + at, 20 - at)


cdef void put_hex(Writer* out, const uint8_t* data, int size) noexcept nogil:
    cdef const char* digits = "0123456789abcdef"
    cdef char two[2]
    cdef int at
    for at in range(size):
        two[0] = digits[data[at] >> 4]
        two[1] = digits[data[at] & 15]
        put(out, two, 2)


cdef void put_base64(Writer* out, const uint8_t* data, int size) noexcept nogil:
    cdef const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    cdef char four[4]
    cdef int at = 0, left
    cdef unsigned int three
    while at < size:
        left = size - at
        three = <unsigned int>data[at] << 16
        if left > 1:
            three |= <unsigned int>data[at + 1] << 8
        if left > 2:
            three |= data[at + 2]
        four[0] = digits[three >> 18]
        four[1] = digits[three >> 12 & 63]
        four[2] = digits[three >> 6 & 63] if left > 1 else c"="
        four[3] = digits[three & 63] if left > 2 else c"="
        put(out, four, 4)
        at += 3


cdef void put_signature(
    Writer* out, Recipe* recipe, const char* key, size_t key_size, const char* quoted, size_t quoted_size
) noexcept nogil:
    cdef Hash hash
    cdef uint8_t digest[32]
    cdef char hashed[64]
    cdef Writer hexed
    cdef int size
    if recipe.kind == SHA1:
        hash = recipe.key.inner
        add(&hash, <uint8_t*>recipe.before.data, recipe.before.size)
        add(&hash, <uint8_t*>recipe.resource.data, recipe.resource.size)
        add(&hash, <uint8_t*>key, key_size)
        size = end_keyed(&recipe.key, &hash, digest)
        put_base64(out, digest, size)
        return
    begin(&hash, SHA256)
    add(&hash, <uint8_t*>recipe.before.data, recipe.before.size)
    add(&hash, <uint8_t*>recipe.resource.data, recipe.resource.size)
    add(&hash, <uint8_t*>quoted, quoted_size)
    add(&hash, <uint8_t*>recipe.after.data, recipe.after.size)
    size = end(&hash, digest)
    hexed.data = hashed
    hexed.size = 0
    hexed.room = sizeof(hashed)
    hexed.full = False
    put_hex(&hexed, digest, size)
    hash = recipe.key.inner
    add(&hash, <uint8_t*>recipe.text.data, recipe.text.size)
    add(&hash, <uint8_t*>hashed, sizeof(hashed))
    size = end_keyed(&recipe.key, &hash, digest)
    put_hex(out, digest, size)


cdef size_t make_head(char* head, Recipe* recipe, Wanted* wanted) noexcept nogil:
    """A request in LONGEST_HEAD bytes: its length, 0 when it does not fit."""
    cdef Writer out
    cdef size_t quoted, quoted_size
    out.data = head
    out.size = 0
    out.room = LONGEST_HEAD
    out.full = False
    put(&out, recipe.path.data, recipe.path.size)
    quoted = out.size
    put_quoted(&out, wanted.key, wanted.key_size)
    quoted_size = out.size - quoted
    put(&out, recipe.fixed.data, recipe.fixed.size)
    put(&out, "if-match: ", 10)
    put(&out, wanted.etag, wanted.etag_size)
    put(&out, "\r\n", 2)
    if not is_whole(wanted):
        put(&out, "range: bytes=", 13)
        put_number(&out, wanted.begin)
        put(&out, "-", 1)
        put_number(&out, wanted.begin + wanted.size - 1)
        put(&out, "\r\n", 2)
    if recipe.kind:
        put(&out, recipe.lines.data, recipe.lines.size)
        put_signature(&out, recipe, wanted.key, wanted.key_size, head + quoted, quoted_size)
        put(&out, "\r\n", 2)
    put(&out, "\r\n", 2)
    return 0 if out.full else out.size


cdef bint find_field(const char* head, size_t size, const char* name, size_t name_size, Text* found) noexcept nogil:
    """The value of a header of an answer; `name` has its colon."""
    cdef const char* line = head
    cdef const char* last = head + size
    cdef const char* stop
    cdef const char* value
    while line < last:
        stop = <const char*>memchr(line, c"\n", last - line)
        if stop == NULL:
            stop = last
        if <size_t>(stop - line) >= name_size and strncasecmp(line, name, name_size) == 0:
            value = line + name_size
            while stop > value and ((stop - 1)[0] == c"\r" or (stop - 1)[0] == c" "):
                stop -= 1
            while value < stop and value[0] == c" ":
                value += 1
            found.data = value
            found.size = stop - value
            return True
        line = stop + 1
    return False


cdef bint is_right(Exchange* x, Recipe* recipe, Wanted* wanted) noexcept nogil:
    cdef Text value
    cdef uint64_t theirs = 0
    if x.status != (200 if is_whole(wanted) else 206) or <size_t>x.received != wanted.size:
        return False
    if not find_field(x.scratch, x.end, "etag:", 5, &value):
        return False
    if value.size != wanted.etag_size or memcmp(value.data, wanted.etag, wanted.etag_size):
        return False
    if not is_whole(wanted):  # whose checksum is not told
        return (
            find_field(x.scratch, x.end, "content-range:", 14, &value)
            and value.size > 6
            and memcmp(value.data, "bytes ", 6) == 0
            and read_number(value.data + 6, value.size - 6, &theirs) > 0
            and theirs == wanted.begin
        )
    if not recipe.crc or not find_field(x.scratch, x.end, "x-oss-hash-crc64ecma:", 21, &value):
        return True
    return (
        value.size > 0
        and read_number(value.data, value.size, &theirs) == value.size
        and crc64(<uint8_t*>x.target, x.received) == theirs
    )


cdef size_t read_number(const char* text, size_t size, uint64_t* number) noexcept nogil:
    """How many digits it begins with, at most 20; `number` is theirs."""
    cdef size_t at = 0
    number[0] = 0
    while at < size and at < 20 and c"0" <= text[at] <= c"9":
        number[0] = number[0] * 10 + <uint64_t>(text[at] - c"0")
        at += 1
    return at


cdef inline bint is_whole(Wanted* wanted) noexcept nogil:
    return wanted.begin == 0 and wanted.size == wanted.total


cdef int get(Line* line, Recipe* recipe, Wanted* wanted, char* target) noexcept nogil:
    """GOT: the bytes are in `target`. AGAIN: the connection had ended before anything of the answer came. UNUSUAL:
    whatever else. After anything but GOT the connection is of no use any more."""
    cdef char head[LONGEST_HEAD]
    cdef char scratch[SCRATCH]
    cdef Exchange x
    cdef Text value
    cdef int outcome
    cdef size_t length = make_head(head, recipe, wanted)
    if length == 0:
        return UNUSUAL
    prepare(&x, line.descriptor, head, length, line.armed)
    x.target = target
    x.target_size = wanted.size
    x.scratch = scratch
    x.room = SCRATCH
    x.timeout = recipe.timeout
    x.stall = recipe.stall
    outcome = exchange(&x)
    line.armed = x.armed
    line.ends = True
    if outcome == GONE and x.filled == 0:
        return AGAIN
    if outcome != DONE or not is_right(&x, recipe, wanted):
        return UNUSUAL
    line.ends = (
        find_field(x.scratch, x.end, "connection:", 11, &value)
        and value.size == 5
        and strncasecmp(value.data, "close", 5) == 0
    )
    return GOT


cdef Text text_of(bytes data):
    cdef Text text
    text.data = data
    text.size = len(data)
    return text


cdef class Stamp:
    def __cinit__(
        self, *, int kind, bytes path, bytes fixed, bytes resource, bytes before, bytes after, bytes text, bytes lines,
        bytes key, bint crc, double timeout, double stall, double lasts
    ):
        self.held = (path, fixed, resource, before, after, text, lines)
        self.recipe.kind = kind
        self.recipe.path = text_of(path)
        self.recipe.fixed = text_of(fixed)
        self.recipe.resource = text_of(resource)
        self.recipe.before = text_of(before)
        self.recipe.after = text_of(after)
        self.recipe.text = text_of(text)
        self.recipe.lines = text_of(lines)
        if kind:
            set_key(&self.recipe.key, kind, key, len(key))
        self.recipe.crc = crc
        self.recipe.timeout = timeout
        self.recipe.stall = stall
        self.recipe.until = now() + lasts

    def request(self, bytes key, str etag, span=None):
        cdef char head[LONGEST_HEAD]
        cdef bytes expected = etag.encode()
        cdef Wanted wanted = wanted_of(key, expected, span or (0, 0), 0)
        cdef size_t length = make_head(head, &self.recipe, &wanted)
        if length == 0:
            raise ValueError(f"a head of more than {LONGEST_HEAD} bytes")
        return head[:length]

    def get(self, connection, bytes key, str etag, target, begin=0, total=None):
        cdef Line line
        cdef Py_buffer into
        cdef bytes expected = etag.encode()
        cdef Wanted wanted
        cdef int outcome
        line.descriptor = connection.fileno()
        line.armed = -1.0
        line.ends = False
        PyObject_GetBuffer(target, &into, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            wanted = wanted_of(key, expected, (begin, begin + into.len), into.len if total is None else total)
            with nogil:
                outcome = get(&line, &self.recipe, &wanted, <char*>into.buf)
        finally:
            PyBuffer_Release(&into)
        return outcome, not line.ends


cdef Wanted wanted_of(bytes key, bytes etag, span, size_t total):
    """What belongs to `key` and `etag` for as long as they are kept."""
    cdef Wanted wanted
    wanted.key = key
    wanted.key_size = len(key)
    wanted.etag = etag
    wanted.etag_size = len(etag)
    wanted.begin, end = span
    wanted.size = end - wanted.begin
    wanted.total = total
    return wanted
