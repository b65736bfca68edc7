/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What xen/common/kemari.c and xen/arch/x86/{hvm,mm}/kemari.c need of the
 * hypervisor, in user space, with one physical CPU.
 *
 * Rules that the real thing states in comments are assertions here: locks are
 * held where they have to be, pauses are balanced, every page allocated is
 * freed, a hook runs in the context which it asks for.
 */

#ifndef EMUL_H
#define EMUL_H

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Not an errno of Linux; see xen/errno.h. */
#ifndef ERESTART
#define ERESTART 85
#endif

#define CONFIG_KEMARI 1
#define CONFIG_ARGO 1
#define __XEN__ 1

#define PAGE_SHIFT 12
#define PAGE_SIZE  (1UL << PAGE_SHIFT)
#define PAGE_MASK  (~(PAGE_SIZE - 1))
#define PFN_UP(x)  (((x) + PAGE_SIZE - 1) >> PAGE_SHIFT)

#define BITS_PER_LONG 64
#define BITS_TO_LONGS(n) (((n) + BITS_PER_LONG - 1) / BITS_PER_LONG)
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define ROUNDUP(x, a) (((x) + (a) - 1) & ~((typeof(x))(a) - 1))
#define MASK_EXTR(v, m) (((v) & (m)) / ((m) & -(m)))
#define MASK_INSR(v, m) (((v) * ((m) & -(m))) & (m))
#define min(a, b) ({ typeof(a) a_ = (a); typeof(b) b_ = (b); \
                     a_ < b_ ? a_ : b_; })
#define max(a, b) ({ typeof(a) a_ = (a); typeof(b) b_ = (b); \
                     a_ > b_ ? a_ : b_; })
#define min_t(t, a, b) min((t)(a), (t)(b))
#define max_t(t, a, b) max((t)(a), (t)(b))
#define likely(x)   (x)
#define unlikely(x) (x)
#define cf_check
#define __must_check __attribute__((__warn_unused_result__))
#define fallthrough __attribute__((__fallthrough__))
#define always_inline inline __attribute__((__always_inline__))

#define ASSERT(x) assert(x)
#define ASSERT_UNREACHABLE() assert(!"unreachable")
#define BUG() abort()
#define BUG_ON(x) assert(!(x))
#define BUILD_BUG_ON(x) _Static_assert(!(x), #x)

typedef uint64_t uint64_aligned_t __attribute__((aligned(8)));
typedef int64_t s_time_t;
typedef uint64_t u64;
#define STIME_MAX INT64_MAX
typedef uint64_t paddr_t;
typedef unsigned long xen_pfn_t;
typedef uint16_t domid_t;
typedef uint32_t evtchn_port_t;

typedef const uint8_t const_uint8;
typedef const uint64_t const_uint64;
#define XEN_GUEST_HANDLE_64(t) struct { t *p; }

#include "public-kemari.h"

/* As in a debug build: mixing them up does not compile. */
#define TYPE_SAFE(t, n)                                            \
    typedef struct { t n; } n##_t;                                 \
    static inline n##_t _##n(t x) { return (n##_t){ x }; }         \
    static inline t n##_x(n##_t x) { return x.n; }
TYPE_SAFE(unsigned long, pfn)
TYPE_SAFE(unsigned long, gfn)
TYPE_SAFE(unsigned long, mfn)
#define INVALID_GFN _gfn(~0UL)
#define INVALID_MFN _mfn(~0UL)
#define mfn_eq(a, b) (mfn_x(a) == mfn_x(b))
#define gfn_eq(a, b) (gfn_x(a) == gfn_x(b))
#define gfn_add(g, n) _gfn(gfn_x(g) + (n))

/*
 * Atomics.  GCC's are stronger than what Xen's promise, no test here depends
 * on ordering.
 */
typedef struct { int counter; } atomic_t;
#define atomic_read(a) __atomic_load_n(&(a)->counter, __ATOMIC_SEQ_CST)
#define atomic_inc(a)  ((void)__atomic_add_fetch(&(a)->counter, 1, \
                                                 __ATOMIC_SEQ_CST))
#define atomic_dec(a)  ((void)__atomic_sub_fetch(&(a)->counter, 1, \
                                                 __ATOMIC_SEQ_CST))
#define read_atomic(p) __atomic_load_n(p, __ATOMIC_SEQ_CST)
#define write_atomic(p, v) __atomic_store_n(p, v, __ATOMIC_SEQ_CST)
#define ACCESS_ONCE(x) (*(volatile typeof(x) *)&(x))
#define xchg(p, v) __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST)
#define cmpxchgptr(p, o, n) ({                                     \
    typeof(*(p)) o_ = (o);                                         \
    __atomic_compare_exchange_n(p, &o_, n, false,                  \
                                __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); o_; })
#define test_and_set_bool(b)   xchg(&(b), true)
#define test_and_clear_bool(b) xchg(&(b), false)
/* Where something may happen on another CPU: called at the nth barrier. */
extern void (*emul_mb_hook)(void);
extern unsigned int emul_mb_count;
static inline void smp_mb(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if ( emul_mb_count && !--emul_mb_count )
        emul_mb_hook();
}
#define smp_wmb() smp_mb()
#define smp_rmb() smp_mb()
/* With one CPU, waiting is for ever. */
#define cpu_relax() assert(!"waiting for another CPU")

#define set_bit(n, map) \
    ((void)__atomic_fetch_or(&(map)[(n) / 64], 1UL << ((n) % 64), \
                             __ATOMIC_SEQ_CST))
#define clear_bit(n, map) \
    ((void)__atomic_fetch_and(&(map)[(n) / 64], ~(1UL << ((n) % 64)), \
                              __ATOMIC_SEQ_CST))
#define test_and_clear_bit(n, map) \
    (!!(__atomic_fetch_and(&(map)[(n) / 64], ~(1UL << ((n) % 64)), \
                           __ATOMIC_SEQ_CST) & (1UL << ((n) % 64))))
#define __set_bit set_bit
#define __clear_bit clear_bit
#define test_bit(n, map) (!!((map)[(n) / 64] & (1UL << ((n) % 64))))

unsigned int find_next_bit(const unsigned long *map, unsigned int size,
                           unsigned int from);
#define find_first_bit(map, size) find_next_bit(map, size, 0)
#define bitmap_for_each(bit, map, size)                            \
    for ( (bit) = find_first_bit(map, size); (bit) < (size);       \
          (bit) = find_next_bit(map, size, (bit) + 1) )
#define bitmap_zero(map, n) memset(map, 0, BITS_TO_LONGS(n) * 8)
#define bitmap_empty(map, n) (find_first_bit(map, n) >= (n))

/* Locks: that they are taken and dropped in pairs, by one CPU. */
typedef struct { bool held; } spinlock_t;
typedef struct { bool held; } rwlock_t;
#define emul_lock(l)   do { assert(!(l)->held); (l)->held = true; } while ( 0 )
#define emul_unlock(l) do { assert((l)->held); (l)->held = false; } while ( 0 )
#define spin_lock_init(l) ((l)->held = false)
#define spin_lock(l)    emul_lock(l)
#define spin_unlock(l)  emul_unlock(l)
#define read_lock(l)    emul_lock(l)
#define read_unlock(l)  emul_unlock(l)
#define write_lock(l)   emul_lock(l)
#define write_unlock(l) emul_unlock(l)

#define XENLOG_ERR
#define XENLOG_WARNING
#define XENLOG_INFO
#define XENLOG_DEBUG
#define XENLOG_G_ERR
#define XENLOG_G_WARNING
#define XENLOG_G_INFO
#define XENLOG_G_DEBUG
/* %pd and the like are no formats of the C library. */
#define printk(fmt, ...) emul_printk(0, ##__VA_ARGS__)
#define dprintk(lvl, fmt, ...) emul_printk(0, ##__VA_ARGS__)
#define gdprintk(lvl, fmt, ...) emul_printk(0, ##__VA_ARGS__)
static inline void emul_printk(int dummy, ...) {}

/* Memory.  emul_fail_alloc: from the nth allocation on they fail; -1: never. */
extern int emul_fail_alloc;
extern unsigned int emul_pages;        /* that have references left */
void *emul_alloc(size_t size);
#define xzalloc(t) ((t *)emul_alloc(sizeof(t)))
#define xzalloc_array(t, n) ((t *)emul_alloc(sizeof(t) * (n)))
void *emul_alloc_dirty(size_t size);
#define xmalloc_array(t, n) ((t *)emul_alloc_dirty(sizeof(t) * (n)))
#define xvmalloc_array(t, n) xmalloc_array(t, n)
#define xvzalloc_array(t, n) xzalloc_array(t, n)
#define xfree(p) free(p)
#define xvfree(p) free(p)
#define XFREE(p)  do { free(p); (p) = NULL; } while ( 0 )
#define XVFREE(p) XFREE(p)

struct page_info { unsigned long mfn; int refs; bool writable; };
#define MEMF_no_refcount 0
#define PGT_writable_page 0
struct domain;
struct page_info *alloc_domheap_page(struct domain *d, unsigned int flags);
struct page_info *mfn_to_page(mfn_t mfn);
#define page_to_mfn(pg) _mfn((pg)->mfn)
bool get_page_and_type(struct page_info *pg, struct domain *d, int type);
void put_page_and_type(struct page_info *pg);
void put_page_alloc_ref(struct page_info *pg);
#define clear_domain_page(mfn) ((void)(mfn))
void *vmap(const mfn_t *mfn, unsigned int nr);
#define vunmap(p) free(p)

/* Copies from the toolstack fail if the handle is NULL. */
#define copy_from_guest(to, hnd, n) \
    ((hnd).p ? (memcpy(to, (hnd).p, (n) * sizeof(*(hnd).p)), 0) : -1)

/* Event channels. */
#define ECS_FREE        0
#define ECS_RESERVED    1
#define ECS_UNBOUND     2
#define ECS_INTERDOMAIN 3
#define ECS_PIRQ        4
#define ECS_VIRQ        5
#define ECS_IPI         6
#define VIRQ_TIMER      0
#define EVTCHNSTAT_closed      0
#define EVTCHNSTAT_unbound     1
#define EVTCHNSTAT_interdomain 2
#define EVTCHNSTAT_pirq        3
#define EVTCHNSTAT_virq        4
#define EVTCHNSTAT_ipi         5

#define EMUL_PORTS 512

struct evtchn {
    rwlock_t lock;
    unsigned char state, xen_consumer, tap, priority;
    bool pending;
    evtchn_port_t port;
    union {
        struct { domid_t remote_domid; } unbound;
        struct { evtchn_port_t remote_port; struct domain *remote_dom; }
            interdomain;
        unsigned int virq;
    } u;
    unsigned short notify_vcpu_id;
    uint32_t fifo_lastq;
    /* What the tests look at. */
    unsigned int sent;         /* events that left the domain */
    unsigned int raised;       /* events that arrived in it */
};

/* What the state records are about. */
struct guest_area { struct page_info *pg; void *map; };
struct timer { bool active; s_time_t expires; };
struct vcpu_runstate_info {
    int state;
    uint64_t state_entry_time;
    uint64_t time[4];
};
typedef struct { uint8_t evtchn_upcall_pending; uint8_t pad[63]; } vcpu_info_t;
typedef struct { uint64_t raw[4]; } vcpu_time_info_t;
struct emul_handle { void *p; };

struct vcpu {
    struct domain *domain;
    unsigned int vcpu_id;
    unsigned long pause_flags;
    struct guest_area vcpu_info_area, runstate_guest_area;
    struct emul_handle runstate_guest;
    struct vcpu_runstate_info runstate;
    struct timer singleshot_timer;
    s_time_t periodic_period;
    vcpu_info_t info;
    bool fifo;                     /* queues exist */
    paddr_t fifo_control;          /* INVALID_PADDR: no control block */
    uint32_t fifo_tail[16];
    unsigned int upcalls;          /* hvm_assert_evtchn_irq() */
    struct {
        struct guest_area time_guest_area;
        struct emul_handle time_info_guest;
        bool nmi_pending;
        bool vpmu;
        struct {
            uint8_t evtchn_upcall_vector;
            uint64_t intr_shadow;
            uint64_t cache_tsc_offset;
            struct { struct { uint32_t icr; } init_sipi; } vlapic;
        } hvm;
    } arch;
};

struct evtchn_port_ops {
    void (*set_pending)(struct vcpu *v, struct evtchn *chn);
};

#define EMUL_GFNS 4096
#define EMUL_VCPUS 4

struct p2m_domain {
    bool locked;
    unsigned long max_mapped_pfn;
    int default_access;
};

enum { p2m_ram_rw, p2m_ram_logdirty };
enum { p2m_access_rwx, p2m_access_rx };

struct domain {
    domid_t domain_id;
    struct kemari *kemari;
    bool is_dying;
    unsigned int max_vcpus;
    struct vcpu *vcpu[EMUL_VCPUS];
    int pause_count, controller_pause_count;
    rwlock_t event_lock;
    unsigned int max_evtchn_port, valid_evtchns;
    const struct evtchn_port_ops *evtchn_port_ops;
    struct evtchn evtchn[EMUL_PORTS];

    /* Paging. */
    bool paging_locked, log_dirty;
    struct p2m_domain p2m;
    bool dirty[EMUL_GFNS];     /* log-dirty bitmap */
    bool writable[EMUL_GFNS];  /* p2m_ram_rw, otherwise p2m_ram_logdirty */

    /* State. */
    unsigned long vm_assist;
    void *evtchn_fifo, *shared_info;
    uint64_t fifo_gfn[8];
    unsigned int nr_fifo, nr_grant_frames, max_grant_frames;
    unsigned long watchdog_inuse_map;
    unsigned int vmtrace_size;
    void *vm_event_monitor, *argo;
    bool ioreq_server, mem_paging;
    struct {
        uint32_t emulation_flags;
        bool vtsc;
        struct { struct { struct domain *dom; } preempt; } paging;
        struct {
            uint64_t sync_tsc, load_tsc;
            s_time_t load_stime;
            s_time_t stime_delta;
            uint64_t params[1];
            uint64_t callback_via; /* hvm_set_callback_via() */
        } hvm;
    } arch;

    struct vcpu vcpus[EMUL_VCPUS];
    unsigned int notified, flushed;
};

extern struct vcpu *current;
#define for_each_vcpu(d, v) \
    for ( unsigned int i_ = 0; \
          i_ < (d)->max_vcpus && ((v) = (d)->vcpu[i_], true); i_++ )

void domain_pause(struct domain *d);
void domain_pause_nosync(struct domain *d);
void domain_unpause(struct domain *d);

#define port_is_valid(d, p) ((p) < (d)->valid_evtchns)
static inline struct evtchn *evtchn_from_port(struct domain *d, unsigned int p)
{
    assert(port_is_valid(d, p));
    return &d->evtchn[p];
}
#define evtchn_usable(chn) ((chn)->state > ECS_RESERVED)
#define evtchn_read_lock(chn)   read_lock(&(chn)->lock)
#define evtchn_read_unlock(chn) read_unlock(&(chn)->lock)

int evtchn_send(struct domain *d, evtchn_port_t port);
void evtchn_port_set_pending(struct domain *d, unsigned int vcpu_id,
                             struct evtchn *chn);
void notify_via_xen_event_channel(struct domain *d, int port);
int alloc_xen_event_channel_at(struct domain *d, evtchn_port_t port,
                               unsigned int vcpu, domid_t remote);
void free_xen_event_channel(struct domain *d, int port);
void evtchn_close(struct domain *d, evtchn_port_t port);

/* Paging. */
#define paging_lock(d)   emul_lock_bool(&(d)->paging_locked)
#define paging_unlock(d) emul_unlock_bool(&(d)->paging_locked)
#define paging_locked_by_me(d) ((d)->paging_locked)
static inline void emul_lock_bool(bool *b) { assert(!*b); *b = true; }
static inline void emul_unlock_bool(bool *b) { assert(*b); *b = false; }
#define p2m_get_hostp2m(d) (&(d)->p2m)
#define p2m_lock(p)   emul_lock_bool(&(p)->locked)
#define p2m_unlock(p) emul_unlock_bool(&(p)->locked)
#define p2m_locked_by_me(p) ((p)->locked)

#define paging_mode_log_dirty(d) ((d)->log_dirty)
int paging_log_dirty_enable(struct domain *d);
int paging_log_dirty_disable(struct domain *d, bool resuming);
void paging_mark_pfn_dirty(struct domain *d, pfn_t pfn);
void paging_mark_pfn_clean(struct domain *d, pfn_t pfn);
int p2m_change_type_one(struct domain *d, unsigned long gfn, int ot, int nt);
void p2m_flush_hardware_cached_dirty(struct domain *d);
#define hvm_asid_flush_vcpu(v) ((void)(v)->domain->flushed++)

/* Pages of which the p2m cannot be changed; whether log-dirty mode can be on. */
extern unsigned long emul_stuck_gfn;
extern bool emul_no_log_dirty;

/* Calls to hypercall_preempt_check() until it says yes; 0: never. */
extern unsigned int emul_preempt;
bool hypercall_preempt_check(void);
/* As long as nothing but the domctl lock is held. */
void process_pending_softirqs(void);

extern s_time_t emul_now;
#define NOW() (emul_now)

/* xen/event.h calls this for domains which have a struct kemari. */
void kemari_set_pending(struct vcpu *v, struct evtchn *chn);

#include "kemari.h"
#include "kemari-internal.h"

/*
 * Of these, arch-stub.c needs nothing and emul-arch.c is the other side.
 */
#define is_hvm_domain(d) true
#define hap_enabled(d)   true
#define has_32bit_shinfo(d) false
#define has_arch_pdevs(d) false
#define nestedhvm_enabled(d) false
#define altp2m_active(d) false
#define is_viridian_domain(d) false
#define mem_sharing_enabled(d) false
#define p2m_pod_active(d) false
#define mem_paging_enabled(d) ((d)->mem_paging)
#define vm_event_check_ring(ved) ((ved) != NULL)
#define domain_has_ioreq_server(d) ((d)->ioreq_server)
#define vpmu_available(v) ((v)->arch.vpmu)
#define X86_EMU_LAPIC 1
#define vcpu_vlapic(v) (&(v)->arch.hvm.vlapic)
#define VPF_down 2
#define cpu_has_vmx false
#define arch_vm_assist_valid_mask(d) 0x1fUL
#define MILLISECS(ms) ((s_time_t)(ms) * 1000000)
#define STIME_DELTA_MAX ((s_time_t)((uint64_t)~0ULL >> 2))
#define INVALID_PADDR (~0UL)
#define INVALID_M2P_ENTRY (~0UL)
#define PAGE_OFFSET(p) ((unsigned long)(p) & ~PAGE_MASK)
#define gaddr_to_gfn(a) _gfn((a) >> PAGE_SHIFT)
#define gfn_to_gaddr(g) ((paddr_t)gfn_x(g) << PAGE_SHIFT)
/* Frames and guest frames have the same numbers, if they have any. */
extern unsigned long emul_removed_gfn;
#define mfn_to_gfn(d, m) (mfn_x(m) == emul_removed_gfn ? INVALID_GFN \
                                                      : _gfn(mfn_x(m)))
#define virt_to_mfn(p) ((unsigned long)(p))
#define XENMEM_resource_grant_table_id_shared 0
#define gnttab_resource_max_frames(d, id) ((d)->max_grant_frames)
#define gnttab_is_v1_only(d) true
bool gnttab_shared_frame_gfn(struct domain *d, unsigned int idx, gfn_t *gfn);
#define EVTCHN_FIFO_MAX_QUEUES 16
#define EVTCHN_FIFO_PRIORITY_MIN 15
typedef uint32_t event_word_t;
struct evtchn_init_control {
    uint64_t control_gfn;
    uint32_t offset, vcpu;
};
struct evtchn_expand_array { uint64_t array_gfn; };
int evtchn_fifo_init_control(struct domain *d, struct evtchn_init_control *ic);
int evtchn_fifo_expand_array(struct domain *d,
                             const struct evtchn_expand_array *ea);
unsigned int evtchn_fifo_array_gfns(struct domain *d, uint64_t gfns[],
                                    unsigned int max);
int evtchn_fifo_get_queues(const struct vcpu *v, paddr_t *control,
                           uint32_t tails[]);
void evtchn_fifo_set_queues(struct vcpu *v, const uint32_t tails[]);
bool evtchn_get_state(struct domain *d, evtchn_port_t port,
                      struct xen_kemari_evtchn *e);
int evtchn_set_state(struct domain *d, const struct xen_kemari_evtchn *e);
static inline struct vcpu *domain_vcpu(const struct domain *d, unsigned int id)
{
    return id < d->max_vcpus ? d->vcpu[id] : NULL;
}
#define runstate_guest(v) ((v)->runstate_guest)
#define guest_handle_is_null(h) (!(h).p)
#define set_xen_guest_handle(h, val) ((h).p = (val))
#define vcpu_runstate_get(v, r) (*(r) = (v)->runstate)
#define timer_is_active(t) ((t)->active)
#define set_timer(t, e) ((t)->active = true, (t)->expires = (e))
#define vcpu_set_periodic_timer(v, p) ((v)->periodic_period = (p))
#define guest_stime_delta(d) ((d)->arch.hvm.stime_delta)
/*
 * One tick is one ns, in all the clocks there are.  The TSC is ahead by this
 * on the physical CPU that we are on now.
 */
extern uint64_t emul_tsc_skew;
#define get_s_time_fixed(tsc) ((s_time_t)((tsc) - emul_tsc_skew))
void hvm_restart_tsc(struct domain *d);
#define rdtsc() ((uint64_t)emul_now + emul_tsc_skew)
#define hvm_tsc_scaling_supported false
#define hvm_scale_tsc(d, tsc) (tsc)
#define hvm_get_guest_time_fixed(v, at) ((void)(v), get_s_time_fixed(at))
#define gtime_to_gtsc(d, t) (t)
#define hvm_set_tsc_offset(v, offset, at) ((void)(v))
/* It writes to a linear address of the current domain's. */
#define force_update_vcpu_system_time(v) assert((v) == current)
#define update_domain_wallclock_time(d) ((void)0)
#define vcpu_info(v, field) ((v)->info.field)
#define hvm_assert_evtchn_irq(v) ((void)(v)->upcalls++)
#define HVM_PARAM_CALLBACK_IRQ 0
void hvm_set_callback_via(struct domain *d, uint64_t via);
int map_guest_area(struct vcpu *v, paddr_t gaddr, unsigned int size,
                   struct guest_area *area,
                   void (*populate)(void *dst, struct vcpu *v));
struct hvm_vcpu_nonreg_state {
    struct { uint64_t activity_state, interruptibility_info, pending_dbg; } vmx;
    struct { uint64_t intr_shadow; } svm;
};
#define hvm_get_nonreg_state(v, n) \
    ((n)->svm.intr_shadow = (v)->arch.hvm.intr_shadow)
#define hvm_set_nonreg_state(v, n) \
    ((v)->arch.hvm.intr_shadow = (n)->svm.intr_shadow)
typedef struct { uint8_t *data; uint32_t cur, size; } hvm_domain_context_t;
size_t hvm_save_size(struct domain *d);
int hvm_save(struct domain *d, hvm_domain_context_t *h);

/* For the tests. */
extern struct domain guest, dom0;
extern void (*emul_flush_hook)(struct domain *d); /* what PML had cached */
extern unsigned int emul_log[64], emul_log_nr;     /* ports, in order */
void emul_init(void);
void emul_destroy(void);
/* The guest writes to a page, or the page is written on its behalf. */
void emul_write(unsigned long gfn);
/* The guest sends. */
void emul_send(evtchn_port_t port);
/* Somebody sends to the guest. */
void emul_raise(evtchn_port_t port);

#endif
