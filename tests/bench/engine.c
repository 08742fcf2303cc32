// An engine that costs nothing, for benchmarks of what stands before it: one epoll thread, HTTP/1.1 with keep-alive.
// POST with "stream":true answers max_tokens chunks in vLLM's wire format, one every DELAY_US (with usage on each where
// continuous_usage_stats is asked for, with token ids where return_token_ids is); any other POST one JSON body.
// Usage: engine PORT DELAY_US MODEL
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#define MAXFD 20000
#define BUF 262144
typedef struct { int used, len, cap; char *in; int streaming, left, total, usage, cont, ids; uint64_t due; unsigned id; } C;
static C conns[MAXFD]; static int active[MAXFD], nactive; static long reqs, chunks, bytes; static const char *model = "tiny"; static long delay_us = 20000;
static volatile int want;
static void onusr(int s) { (void)s; want = 1; }
static uint64_t now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000ull + t.tv_nsec / 1000; }
static void out(int fd, const char *b, int n) { bytes += n; while (n > 0) { ssize_t w = write(fd, b, n); if (w < 0) { if (errno == EAGAIN) { usleep(100); continue; } return; } b += w; n -= w; } }
static void chunk(int fd, const char *b, int n) { char h[4096]; int k = snprintf(h, sizeof h, "%x\r\n", n); memcpy(h + k, b, n); k += n; memcpy(h + k, "\r\n", 2); out(fd, h, k + 2); chunks++; }
static void closec(int fd, int ep) { epoll_ctl(ep, EPOLL_CTL_DEL, fd, 0); close(fd); conns[fd].used = 0; conns[fd].streaming = 0; free(conns[fd].in); conns[fd].in = 0; }
static void step(int fd) {
  C *c = &conns[fd]; char b[1024]; int n;
  if (c->left > 0) {
    n = snprintf(b, sizeof b, "data: {\"id\":\"chatcmpl-%08x\",\"object\":\"chat.completion.chunk\",\"created\":1764000000,\"model\":\"%s\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" tok%d\"},\"logprobs\":null,\"finish_reason\":%s", c->id, model, c->total - c->left, c->left == 1 ? "\"length\"" : "null");
    if (c->ids) n += snprintf(b + n, sizeof b - n, ",\"token_ids\":[%d]}]", 1000 + c->total - c->left);
    else n += snprintf(b + n, sizeof b - n, ",\"token_ids\":null}]");
    if (c->cont) n += snprintf(b + n, sizeof b - n, ",\"usage\":{\"prompt_tokens\":17,\"total_tokens\":%d,\"completion_tokens\":%d,\"completion_tokens_details\":null}", 17 + c->total - c->left + 1, c->total - c->left + 1);
    if (c->ids && c->left == c->total) n += snprintf(b + n, sizeof b - n, ",\"prompt_token_ids\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]");
    n += snprintf(b + n, sizeof b - n, "}\n\n");
    chunk(fd, b, n); c->left--; c->due += delay_us; if (c->left > 0 || delay_us > 0) { if (c->left > 0) return; }
  }
  if (c->usage) { n = snprintf(b, sizeof b, "data: {\"id\":\"chatcmpl-%08x\",\"object\":\"chat.completion.chunk\",\"created\":1764000000,\"model\":\"%s\",\"choices\":[],\"usage\":{\"prompt_tokens\":17,\"total_tokens\":%d,\"completion_tokens\":%d}}\n\n", c->id, model, 17 + c->total, c->total); chunk(fd, b, n); }
  chunk(fd, "data: [DONE]\n\n", 14); out(fd, "0\r\n\r\n", 5); c->streaming = 0;
}
static void handle(int fd) {
  C *c = &conns[fd];
  for (;;) {
    if (c->streaming || c->len < 4) return;
    c->in[c->len] = 0; char *e = strstr(c->in, "\r\n\r\n"); if (!e) return;
    int hl = e - c->in + 4, cl = 0; char *p = strcasestr(c->in, "\r\ncontent-length:"); if (p && p < e) cl = atoi(p + 17);
    char *te = strcasestr(c->in, "\r\ntransfer-encoding: chunked");
    int tot;
    if (te && te < e) { char *z = strstr(c->in + hl, "0\r\n\r\n"); if (!z) return; tot = z + 5 - c->in; } else tot = hl + cl;
    if (c->len < tot) return;
    char sv = c->in[tot]; c->in[tot] = 0; char *body = c->in + hl; reqs++; c->id = (unsigned)reqs;
    int post = !strncmp(c->in, "POST", 4);
    if (!post) {
      char m[512], h[1024]; int k;
      if (strstr(c->in, "/v1/models")) k = snprintf(m, sizeof m, "{\"object\":\"list\",\"data\":[{\"id\":\"%s\",\"object\":\"model\",\"created\":1764000000,\"owned_by\":\"vllm\",\"max_model_len\":32768}]}", model);
      else if (!strncmp(c->in, "GET /metrics", 12)) k = snprintf(m, sizeof m, "vllm:num_requests_running{model_name=\"%s\"} 0.0\nvllm:num_requests_waiting{model_name=\"%s\"} 0.0\n", model, model);
      else k = snprintf(m, sizeof m, "{}");
      int n = snprintf(h, sizeof h, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n", k); memcpy(h + n, m, k); out(fd, h, n + k);
    } else {
      int mt = 64; char *q = strstr(body, "\"max_tokens\""); if (!q) q = strstr(body, "\"max_completion_tokens\""); if (q) { q = strchr(q + 2, ':'); if (q) mt = atoi(q + 1); }
      int st = strstr(body, "\"stream\":true") || strstr(body, "\"stream\": true");
      if (st) {
        const char *h = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"; out(fd, h, strlen(h));
        c->streaming = 1; c->left = c->total = mt; c->usage = strstr(body, "include_usage\":true") || strstr(body, "include_usage\": true"); c->due = now() + delay_us; c->cont = !!strstr(body, "continuous_usage_stats\":true"); c->ids = !!strstr(body, "return_token_ids\":true");
        if (delay_us == 0) while (c->streaming) step(fd); else active[nactive++] = fd;
      } else {
        char m[1024], h[2048]; int k = snprintf(m, sizeof m, "{\"id\":\"chatcmpl-%08x\",\"object\":\"chat.completion\",\"created\":1764000000,\"model\":\"%s\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"hello there, this is a mock answer of some length\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":17,\"total_tokens\":%d,\"completion_tokens\":%d}}", c->id, model, 17 + mt, mt);
        int n = snprintf(h, sizeof h, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n", k); memcpy(h + n, m, k); out(fd, h, n + k);
      }
    }
    c->in[tot] = sv; memmove(c->in, c->in + tot, c->len - tot); c->len -= tot;
  }
}
int main(int ac, char **av) {
  int port = atoi(av[1]); if (ac > 2) delay_us = atol(av[2]); if (ac > 3) model = av[3];
  signal(SIGPIPE, SIG_IGN); signal(SIGUSR1, onusr);
  int ls = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1; setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, 4);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (bind(ls, (void *)&a, sizeof a) || listen(ls, 4096)) { perror("bind"); return 1; }
  int ep = epoll_create1(0); struct epoll_event ev = {.events = EPOLLIN, .data.fd = ls}, evs[512]; epoll_ctl(ep, EPOLL_CTL_ADD, ls, &ev);
  for (;;) {
    int n = epoll_wait(ep, evs, 512, nactive ? 1 : 1000);
    if (want) { want = 0; fprintf(stderr, "%ld %ld %ld\n", reqs, chunks, bytes); fflush(stderr); }
    for (int i = 0; i < n; i++) {
      int fd = evs[i].data.fd;
      if (fd == ls) { for (;;) { int c = accept4(ls, 0, 0, SOCK_NONBLOCK); if (c < 0) break; if (c >= MAXFD) { close(c); continue; } setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, 4); conns[c] = (C){.used = 1, .cap = BUF, .in = malloc(BUF + 1)}; struct epoll_event e2 = {.events = EPOLLIN, .data.fd = c}; epoll_ctl(ep, EPOLL_CTL_ADD, c, &e2); } continue; }
      C *c = &conns[fd]; if (!c->used) continue;
      if (c->len >= c->cap) { closec(fd, ep); continue; }
      ssize_t r = read(fd, c->in + c->len, c->cap - c->len);
      if (r <= 0) { if (r < 0 && errno == EAGAIN) continue; for (int j = 0; j < nactive; j++) if (active[j] == fd) { active[j] = active[--nactive]; break; } closec(fd, ep); continue; }
      c->len += r; handle(fd);
    }
    uint64_t t = now();
    for (int j = 0; j < nactive;) { int fd = active[j]; C *c = &conns[fd]; while (c->streaming && c->due <= t) step(fd); if (!c->streaming) { active[j] = active[--nactive]; handle(fd); } else j++; }
  }
}
