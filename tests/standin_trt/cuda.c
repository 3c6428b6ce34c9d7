/* Stands in for NVIDIA's driver (libcuda.so.1, with -DDRIVER) and runtime (libcudart.so) in tests.

   Memory of the "device" is reserved and cannot be read by the host: its bytes lie in a shadow that
   copies go to. What is put into a stream is done when somebody waits for it, so a program that
   reads too early reads old values. Every address that is no allocation is an error.

   Written from the documented C interface: names, arguments and numbers of errors are its own. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define EXPORT __attribute__((visibility("default")))

static int number(const char *name, int otherwise) {
  const char *text = getenv(name);
  return text && *text ? atoi(text) : otherwise;
}

#ifdef DRIVER

EXPORT int cuInit(unsigned flags) { return flags ? 1 : number("STANDIN_CUDA_INIT", 0); }
EXPORT int cuDeviceGetCount(int *count) {
  *count = number("STANDIN_CUDA_DEVICES", 1);
  return 0;
}
EXPORT int cuDeviceGet(int *device, int ordinal) {
  *device = ordinal;
  return ordinal < number("STANDIN_CUDA_DEVICES", 1) ? 0 : 101;
}
EXPORT int cuDeviceGetName(char *name, int length, int device) {
  const char *text = getenv("STANDIN_CUDA_NAME");
  snprintf(name, (size_t)length, "%s", text ? text : "Stand-in");
  return device ? 101 : 0;
}
EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device) {
  int capability = number("STANDIN_CUDA_CAPABILITY", 87);
  *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : 8;
  return device ? 101 : 0;
}
EXPORT int cuDriverGetVersion(int *version) {
  *version = number("STANDIN_CUDA_DRIVER", 12060);
  return 0;
}
EXPORT int cuGetErrorString(int code, const char **text) {
  *text = code == 100 ? "no CUDA-capable device is detected"
          : code == 803 ? "system has unsupported display driver / cuda driver combination"
                        : NULL;
  return *text ? 0 : 1;
}

#else

#define BLOCKS 4096
#define WORK 4096
#define STREAMS 256

typedef struct {
  char *address, *bytes;
  size_t size, mapped;
  int pinned;
} Block;
typedef void (*Call)(void *);
typedef struct {
  Call call; /* or a copy */
  char *to, *from;
  size_t count;
} Work;
typedef struct {
  int open, count;
  Work work[WORK];
} Stream;

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static Block blocks[BLOCKS];
static Stream *streams[STREAMS];
static size_t used, most = (size_t)-1, copied_up, copied_down;
static int last, sticky, fail_code, fail_after;
static char fail_name[64];

static int is_sticky(int code) { return code == 999 || (code >= 700 && code < 720) || code == 214; }

static int result(int code) {
  if (sticky) code = sticky;
  if (is_sticky(code)) sticky = code;
  if (code) last = code;
  return code;
}

/* The code that a call of `name` must give, by what tests have asked for. */
static int begun(const char *name) {
  if (sticky) return sticky;
  if (fail_code && !strcmp(name, fail_name) && --fail_after < 0) {
    int code = fail_code;
    fail_code = 0;
    return code;
  }
  return 0;
}

static Block *holding(const char *address, size_t count, int pinned) {
  for (int k = 0; k < BLOCKS; k++) {
    Block *b = &blocks[k];
    if (b->address && b->pinned == pinned && address >= b->address &&
        address + count <= b->address + b->size)
      return b;
  }
  return NULL;
}

static Stream *stream_of(void *handle) {
  size_t k = (size_t)handle;
  return k > 0 && k < STREAMS && streams[k] && streams[k]->open ? streams[k] : NULL;
}

static void flush(Stream *s) {
  for (int k = 0; k < s->count; k++) {
    Work w = s->work[k];
    if (w.call)
      w.call(w.from);
    else
      memcpy(w.to, w.from, w.count);
  }
  s->count = 0;
}

static void flush_all(void) {
  for (int k = 0; k < STREAMS; k++)
    if (streams[k] && streams[k]->open) flush(streams[k]);
}

static int allocate(void **found, size_t size, int pinned) {
  if (used + size > most) return 2;
  for (int k = 0; k < BLOCKS; k++) {
    Block *b = &blocks[k];
    if (b->address) continue;
    /* A page more: no two allocations touch each other. */
    size_t mapped = (size + 8191) / 4096 * 4096;
    int access = pinned ? PROT_READ | PROT_WRITE : PROT_NONE;
    void *address = mmap(NULL, mapped, access, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED) return 2;
    b->bytes = pinned ? address : malloc(size);
    memset(b->bytes, 0xA5, size);
    b->address = address, b->size = size, b->mapped = mapped, b->pinned = pinned;
    used += size;
    *found = address;
    return 0;
  }
  return 2;
}

static int release(char *address, int pinned) {
  flush_all();
  for (int k = 0; k < BLOCKS; k++) {
    Block *b = &blocks[k];
    if (!b->address || b->address != address || b->pinned != pinned) continue;
    if (!pinned) free(b->bytes);
    munmap(b->address, b->mapped);
    used -= b->size;
    memset(b, 0, sizeof *b);
    return 0;
  }
  return address ? 1 : 0;
}

#define BEGIN(name)                \
  pthread_mutex_lock(&lock);       \
  int code = begun(name);          \
  if (!code) {
#define END                        \
  }                                \
  code = result(code);             \
  pthread_mutex_unlock(&lock);     \
  return code;

EXPORT int cudaRuntimeGetVersion(int *version) {
  *version = VERSION;
  return 0;
}
EXPORT int cudaMemGetInfo(size_t *free_bytes, size_t *total) {
  BEGIN("cudaMemGetInfo")
  size_t all = most == (size_t)-1 ? (size_t)8 << 30 : most;
  *free_bytes = all - used, *total = all;
  END
}
EXPORT int cudaMalloc(void **found, size_t size) {
  BEGIN("cudaMalloc") code = allocate(found, size, 0);
  END
}
EXPORT int cudaHostAlloc(void **found, size_t size, unsigned flags) {
  BEGIN("cudaHostAlloc") code = flags ? 1 : allocate(found, size, 1);
  END
}
EXPORT int cudaFree(void *address) {
  BEGIN("cudaFree") code = release(address, 0);
  END
}
EXPORT int cudaFreeHost(void *address) {
  BEGIN("cudaFreeHost") code = release(address, 1);
  END
}
EXPORT int cudaStreamCreateWithFlags(void **found, unsigned flags) {
  BEGIN("cudaStreamCreateWithFlags")
  code = flags == 1 ? 2 : 1; /* only streams that do not wait for the default one */
  for (size_t k = 1; code == 2 && k < STREAMS; k++) {
    if (streams[k] && streams[k]->open) continue;
    if (!streams[k]) streams[k] = calloc(1, sizeof(Stream));
    streams[k]->open = 1, streams[k]->count = 0;
    *found = (void *)k;
    code = 0;
  }
  END
}
EXPORT int cudaStreamDestroy(void *handle) {
  BEGIN("cudaStreamDestroy")
  Stream *s = stream_of(handle);
  if (s) flush(s), s->open = 0;
  code = s ? 0 : 400;
  END
}
EXPORT int cudaStreamSynchronize(void *handle) {
  BEGIN("cudaStreamSynchronize")
  Stream *s = stream_of(handle);
  if (s) flush(s);
  code = s ? 0 : 400;
  END
}
EXPORT int cudaMemcpyAsync(void *to, const void *from, size_t count, int kind, void *handle) {
  BEGIN("cudaMemcpyAsync")
  Stream *s = stream_of(handle);
  const char *device = kind == 1 ? to : from, *host = kind == 1 ? from : to;
  Block *b = holding(device, count, 0);
  if (!s || (kind != 1 && kind != 2) || !b || holding(host, 1, 0) || s->count == WORK) {
    code = s ? 1 : 400;
  } else {
    char *shadow = b->bytes + (device - b->address);
    Work w = {0, kind == 1 ? shadow : (char *)host, kind == 1 ? (char *)host : shadow, count};
    *(kind == 1 ? &copied_up : &copied_down) += count;
    s->work[s->count++] = w;
    /* The call does not come back before such a copy is through. */
    if (!holding(host, count, 1)) flush(s);
  }
  END
}
EXPORT int cudaGetLastError(void) {
  int code = last;
  if (!sticky) last = 0;
  return code;
}
EXPORT const char *cudaGetErrorName(int code) {
  return code == 2     ? "cudaErrorMemoryAllocation"
         : code == 1   ? "cudaErrorInvalidValue"
         : code == 400 ? "cudaErrorInvalidResourceHandle"
         : code == 700 ? "cudaErrorIllegalAddress"
         : code == 719 ? "cudaErrorLaunchFailure"
         : code == 999 ? "cudaErrorUnknown"
                       : "unrecognized error code";
}
EXPORT const char *cudaGetErrorString(int code) {
  return code == 2     ? "out of memory"
         : code == 1   ? "invalid argument"
         : code == 400 ? "invalid resource handle"
         : code == 700 ? "an illegal memory access was encountered"
         : code == 719 ? "unspecified launch failure"
         : code == 999 ? "unknown error"
                       : "unrecognized error code";
}

/* For the stand-in of TensorRT: where the bytes of the device lie, and work for a stream. */
EXPORT void *standin_bytes(void *address, size_t count) {
  Block *b = holding(address, count, 0);
  return b ? b->bytes + ((char *)address - b->address) : NULL;
}
EXPORT int standin_launch(Call call, void *data, void *handle) {
  BEGIN("launch")
  Stream *s = stream_of(handle);
  if (s && s->count < WORK) {
    Work w = {call, 0, data, 0};
    s->work[s->count++] = w;
  } else {
    code = 400;
  }
  END
}

/* For tests. The call of `name` behind the next `after` calls gives `code`. */
EXPORT void standin_fail(const char *name, int after, int code) {
  snprintf(fail_name, sizeof fail_name, "%s", name);
  fail_after = after, fail_code = code;
}
EXPORT void standin_reset(void) { sticky = last = fail_code = 0, most = (size_t)-1; }
EXPORT void standin_limit(size_t more) { most = used + more; }
EXPORT size_t standin_used(void) { return used; }
EXPORT size_t standin_copied(int up) {
  size_t count = up ? copied_up : copied_down;
  *(up ? &copied_up : &copied_down) = 0;
  return count;
}
EXPORT int standin_waiting(void) {
  int count = 0;
  for (int k = 0; k < STREAMS; k++)
    if (streams[k] && streams[k]->open) count += streams[k]->count;
  return count;
}
EXPORT int standin_streams(void) {
  int count = 0;
  for (int k = 0; k < STREAMS; k++) count += streams[k] && streams[k]->open;
  return count;
}

/* So that a process that builds can be made to run out of memory. */
__attribute__((constructor)) static void from_environment(void) {
  int mib = number("STANDIN_CUDA_MIB", 0);
  if (mib) most = (size_t)mib << 20;
}
#endif
