/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What xen/arch/x86/hvm/kemari.c calls.  Each function asserts what the real
 * one relies on without looking.
 */
#include "emul.h"

#define WORDS_PER_PAGE (PAGE_SIZE / sizeof(event_word_t))

bool gnttab_shared_frame_gfn(struct domain *d, unsigned int idx, gfn_t *gfn)
{
    if ( idx >= d->nr_grant_frames )
        return false;

    if ( gfn )
        *gfn = _gfn(3000 + idx);

    return true;
}

static bool is_ram(uint64_t gfn)
{
    return gfn < EMUL_GFNS;
}

int evtchn_fifo_init_control(struct domain *d, struct evtchn_init_control *ic)
{
    struct vcpu *v = domain_vcpu(d, ic->vcpu);
    unsigned int i;

    if ( !v )
        return -ENOENT;
    if ( ic->offset > PAGE_SIZE - 72 || (ic->offset & 7) )
        return -EINVAL;
    if ( v->fifo_control != INVALID_PADDR )
        return -EINVAL;
    if ( !is_ram(ic->control_gfn) )
        return -EINVAL;

    if ( !d->evtchn_fifo )
        for ( i = 0; i < d->max_vcpus; i++ )
            d->vcpu[i]->fifo = true;
    d->evtchn_fifo = d;
    v->fifo_control = (ic->control_gfn << PAGE_SHIFT) + ic->offset;

    return 0;
}

int evtchn_fifo_expand_array(struct domain *d,
                             const struct evtchn_expand_array *ea)
{
    if ( !d->evtchn_fifo )
        return -EOPNOTSUPP;
    if ( !is_ram(ea->array_gfn) )
        return -EINVAL;

    assert(d->nr_fifo < ARRAY_SIZE(d->fifo_gfn));
    d->fifo_gfn[d->nr_fifo++] = ea->array_gfn;

    return 0;
}

unsigned int evtchn_fifo_array_gfns(struct domain *d, uint64_t gfns[],
                                    unsigned int max)
{
    unsigned int i, nr = min(max, d->nr_fifo);

    for ( i = 0; i < nr; i++ )
        gfns[i] = gfn_x(mfn_to_gfn(d, _mfn(d->fifo_gfn[i])));

    return nr;
}

int evtchn_fifo_get_queues(const struct vcpu *v, paddr_t *control,
                           uint32_t tails[])
{
    memcpy(tails, v->fifo_tail, sizeof(v->fifo_tail));
    *control = INVALID_PADDR;

    if ( v->fifo_control == INVALID_PADDR )
        return 0;
    if ( v->fifo_control >> PAGE_SHIFT == emul_removed_gfn )
        return -EOPNOTSUPP;
    *control = v->fifo_control;

    return 0;
}

void evtchn_fifo_set_queues(struct vcpu *v, const uint32_t tails[])
{
    unsigned int i;

    if ( !v->fifo )
        return;

    /*
     * evtchn_fifo_set_pending() uses the event word of a tail that is not 0
     * without looking whether there is one.
     */
    for ( i = 0; i < 16; i++ )
    {
        assert(!tails[i] || tails[i] < v->domain->nr_fifo * WORDS_PER_PAGE);
        v->fifo_tail[i] = tails[i];
    }
}

bool evtchn_get_state(struct domain *d, evtchn_port_t port,
                      struct xen_kemari_evtchn *e)
{
    const struct evtchn *chn = evtchn_from_port(d, port);

    *e = (struct xen_kemari_evtchn){
        .port = port,
        .priority = chn->priority,
        .vcpu = chn->notify_vcpu_id,
        .pending = chn->pending,
        .lastq_vcpu = chn->fifo_lastq >> 8,
        .lastq_priority = chn->fifo_lastq & 0xff,
        .status = chn->state == ECS_UNBOUND ? EVTCHNSTAT_unbound :
                  chn->state == ECS_VIRQ ? EVTCHNSTAT_virq :
                  chn->state == ECS_IPI ? EVTCHNSTAT_ipi :
                  EVTCHNSTAT_interdomain,
        .u = chn->state == ECS_VIRQ ? chn->u.virq :
             chn->state == ECS_UNBOUND ? chn->u.unbound.remote_domid :
             chn->state == ECS_INTERDOMAIN ?
             chn->u.interdomain.remote_dom->domain_id : 0,
    };

    return !chn->xen_consumer && chn->state != ECS_FREE;
}

int evtchn_set_state(struct domain *d, const struct xen_kemari_evtchn *e)
{
    struct evtchn *chn;

    /* Indices into arrays, in the real one. */
    assert(e->port && e->port < XEN_KEMARI_MAX_PORTS);
    assert(e->vcpu < d->max_vcpus && e->lastq_vcpu < d->max_vcpus);
    assert(e->priority < 16 && e->lastq_priority < 16 && e->pending <= 1);

    if ( e->status < EVTCHNSTAT_unbound || e->status > EVTCHNSTAT_ipi ||
         e->status == EVTCHNSTAT_pirq )
        return -EINVAL;
    if ( e->port > d->max_evtchn_port )
        return -ENOSPC;

    chn = evtchn_from_port(d, e->port);
    if ( chn->state != ECS_FREE && (chn->state == ECS_VIRQ ||
                                    chn->state == ECS_IPI ||
                                    e->status >= EVTCHNSTAT_virq) )
        return -EEXIST;

    chn->state = e->status == EVTCHNSTAT_virq ? ECS_VIRQ :
                 e->status == EVTCHNSTAT_ipi ? ECS_IPI :
                 chn->state == ECS_INTERDOMAIN ? ECS_INTERDOMAIN : ECS_UNBOUND;
    if ( chn->state == ECS_VIRQ )
        chn->u.virq = e->u;
    chn->notify_vcpu_id = e->vcpu;
    chn->priority = e->priority;
    chn->pending = e->pending;
    chn->fifo_lastq = (e->lastq_vcpu << 8) | e->lastq_priority;

    return 0;
}

/* Raises the vector of each vCPU that has one, events pending or not. */
void hvm_set_callback_via(struct domain *d, uint64_t via)
{
    struct vcpu *v;

    d->arch.hvm.callback_via = via;
    for_each_vcpu ( d, v )
        if ( !(v->pause_flags & VPF_down) &&
             v->arch.hvm.evtchn_upcall_vector )
            hvm_assert_evtchn_irq(v);
}

int map_guest_area(struct vcpu *v, paddr_t gaddr, unsigned int size,
                   struct guest_area *area,
                   void (*populate)(void *dst, struct vcpu *v))
{
    static struct page_info pg[EMUL_GFNS];
    paddr_t gfn = gaddr >> PAGE_SHIFT;

    assert(v != current);

    if ( !~gaddr )
    {
        area->pg = NULL;
        return 0;
    }
    if ( gfn != (gaddr + size - 1) >> PAGE_SHIFT || (gaddr & 7) )
        return -ENXIO;
    if ( !is_ram(gfn) )
        return -EXDEV;
    if ( area == &v->vcpu_info_area && area->pg )
        return -EBUSY;

    pg[gfn].mfn = gfn;
    area->pg = &pg[gfn];
    area->map = (void *)gaddr;

    return 0;
}

size_t hvm_save_size(struct domain *d)
{
    return 1000;
}

int hvm_save(struct domain *d, hvm_domain_context_t *h)
{
    const uint8_t *shared = (const uint8_t *)d->kemari->shared;

    /* It reads again what it has written: not where others can write. */
    assert(h->data + h->size <= shared ||
           h->data >= shared + d->kemari->nr_frames * PAGE_SIZE);
    assert(h->size >= 1000);
    memset(h->data, 0x48, 996);
    h->cur = 996;
    d->arch.hvm.sync_tsc = rdtsc();

    return 0;
}

/*
 * Local variables:
 * mode: C
 * c-file-style: "BSD"
 * c-basic-offset: 4
 * indent-tabs-mode: nil
 * End:
 */
