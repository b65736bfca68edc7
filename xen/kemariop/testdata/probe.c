/* SPDX-License-Identifier: Apache-2.0 */
/* Written by xen/internal/abitest: prints the layout of Xen's public types. */
#define __XEN_TOOLS__ 1
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <errno.h>
#include <sys/ioctl.h>
#include <public/domctl.h>
#include <public/memory.h>
#include <public/kemari.h>

#define SIZE(t) printf("%s size %zu\n", #t, sizeof(t))
#define OFF(t, f) printf("%s.%s off %zu\n", #t, #f, offsetof(t, f))
#define NUM(name, c) printf("%s = %lld\n", name, (long long)(c))

int main(void)
{
    SIZE(struct xen_domctl_kemari_op);
    OFF(struct xen_domctl_kemari_op, op);
    OFF(struct xen_domctl_kemari_op, flags);
    OFF(struct xen_domctl_kemari_op, u);
    SIZE(struct xen_kemari_enable);
    OFF(struct xen_kemari_enable, version);
    OFF(struct xen_kemari_enable, role);
    OFF(struct xen_kemari_enable, dirty_max);
    OFF(struct xen_kemari_enable, dirty_mark);
    SIZE(struct xen_kemari_status);
    OFF(struct xen_kemari_status, version);
    OFF(struct xen_kemari_status, role);
    OFF(struct xen_kemari_status, state);
    OFF(struct xen_kemari_status, port);
    OFF(struct xen_kemari_status, nr_frames);
    OFF(struct xen_kemari_status, dirty_max);
    OFF(struct xen_kemari_status, dirty_mark);
    SIZE(struct xen_kemari_tap);
    OFF(struct xen_kemari_tap, port);
    OFF(struct xen_kemari_tap, mode);
    SIZE(struct xen_kemari_sync);
    OFF(struct xen_kemari_sync, epoch);
    OFF(struct xen_kemari_sync, dirty_half);
    OFF(struct xen_kemari_sync, dirty_nr);
    OFF(struct xen_kemari_sync, flags);
    OFF(struct xen_kemari_sync, always_nr);
    OFF(struct xen_kemari_sync, state_len);
    SIZE(struct xen_kemari_release);
    OFF(struct xen_kemari_release, epoch);
    SIZE(struct xen_kemari_state);
    OFF(struct xen_kemari_state, buffer);
    OFF(struct xen_kemari_state, size);
    SIZE(struct xen_kemari_gfns);
    OFF(struct xen_kemari_gfns, gfns);
    OFF(struct xen_kemari_gfns, nr);
    SIZE(struct xen_kemari_shared);
    OFF(struct xen_kemari_shared, magic);
    OFF(struct xen_kemari_shared, version);
    OFF(struct xen_kemari_shared, nr_frames);
    OFF(struct xen_kemari_shared, dirty_off);
    OFF(struct xen_kemari_shared, dirty_max);
    OFF(struct xen_kemari_shared, always_off);
    OFF(struct xen_kemari_shared, always_max);
    OFF(struct xen_kemari_shared, state_off);
    OFF(struct xen_kemari_shared, state_max);
    OFF(struct xen_kemari_shared, trigger_port);
    OFF(struct xen_kemari_shared, trigger_reason);
    OFF(struct xen_kemari_shared, t_trigger);
    OFF(struct xen_kemari_shared, t_frozen);
    OFF(struct xen_kemari_shared, t_harvested);
    OFF(struct xen_kemari_shared, sync);
    OFF(struct xen_kemari_shared, used);
    SIZE(struct xen_kemari_rec);
    OFF(struct xen_kemari_rec, type);
    OFF(struct xen_kemari_rec, instance);
    OFF(struct xen_kemari_rec, length);
    SIZE(struct xen_kemari_domain);
    OFF(struct xen_kemari_domain, version);
    OFF(struct xen_kemari_domain, nr_vcpus);
    OFF(struct xen_kemari_domain, evtchn_abi);
    OFF(struct xen_kemari_domain, grant_frames);
    OFF(struct xen_kemari_domain, vm_assist);
    OFF(struct xen_kemari_domain, shared_info_gfn);
    OFF(struct xen_kemari_domain, guest_time);
    OFF(struct xen_kemari_domain, callback_irq);
    SIZE(struct xen_kemari_vcpu);
    OFF(struct xen_kemari_vcpu, flags);
    OFF(struct xen_kemari_vcpu, upcall_vector);
    OFF(struct xen_kemari_vcpu, pad);
    OFF(struct xen_kemari_vcpu, vcpu_info);
    OFF(struct xen_kemari_vcpu, runstate);
    OFF(struct xen_kemari_vcpu, time_area);
    OFF(struct xen_kemari_vcpu, runstate_time);
    OFF(struct xen_kemari_vcpu, sshot_expires);
    OFF(struct xen_kemari_vcpu, periodic_period);
    OFF(struct xen_kemari_vcpu, intr_shadow);
    OFF(struct xen_kemari_vcpu, pending_dbg);
    OFF(struct xen_kemari_vcpu, fifo_control);
    OFF(struct xen_kemari_vcpu, fifo_tail);
    SIZE(struct xen_kemari_evtchn);
    OFF(struct xen_kemari_evtchn, port);
    OFF(struct xen_kemari_evtchn, status);
    OFF(struct xen_kemari_evtchn, priority);
    OFF(struct xen_kemari_evtchn, vcpu);
    OFF(struct xen_kemari_evtchn, lastq_vcpu);
    OFF(struct xen_kemari_evtchn, lastq_priority);
    OFF(struct xen_kemari_evtchn, pending);
    OFF(struct xen_kemari_evtchn, u);
    NUM("XEN_KEMARI_VERSION", XEN_KEMARI_VERSION);
    NUM("XEN_DOMCTL_kemari_op", XEN_DOMCTL_kemari_op);
    NUM("XENMEM_resource_kemari", XENMEM_resource_kemari);
    NUM("XEN_KEMARI_OP_enable", XEN_KEMARI_OP_enable);
    NUM("XEN_KEMARI_OP_disable", XEN_KEMARI_OP_disable);
    NUM("XEN_KEMARI_OP_tap", XEN_KEMARI_OP_tap);
    NUM("XEN_KEMARI_OP_sync", XEN_KEMARI_OP_sync);
    NUM("XEN_KEMARI_OP_release", XEN_KEMARI_OP_release);
    NUM("XEN_KEMARI_OP_deliver", XEN_KEMARI_OP_deliver);
    NUM("XEN_KEMARI_OP_set_state", XEN_KEMARI_OP_set_state);
    NUM("XEN_KEMARI_OP_resume", XEN_KEMARI_OP_resume);
    NUM("XEN_KEMARI_OP_status", XEN_KEMARI_OP_status);
    NUM("XEN_KEMARI_OP_hot", XEN_KEMARI_OP_hot);
    NUM("XEN_KEMARI_OP_warm", XEN_KEMARI_OP_warm);
    NUM("XEN_KEMARI_ROLE_NONE", XEN_KEMARI_ROLE_NONE);
    NUM("XEN_KEMARI_ROLE_PRIMARY", XEN_KEMARI_ROLE_PRIMARY);
    NUM("XEN_KEMARI_ROLE_SECONDARY", XEN_KEMARI_ROLE_SECONDARY);
    NUM("XEN_KEMARI_TRIGGERED", XEN_KEMARI_TRIGGERED);
    NUM("XEN_KEMARI_FROZEN", XEN_KEMARI_FROZEN);
    NUM("XEN_KEMARI_HARVESTED", XEN_KEMARI_HARVESTED);
    NUM("XEN_KEMARI_UNCOMMITTED", XEN_KEMARI_UNCOMMITTED);
    NUM("XEN_KEMARI_HELD", XEN_KEMARI_HELD);
    NUM("XEN_KEMARI_STATE_SET", XEN_KEMARI_STATE_SET);
    NUM("XEN_KEMARI_TAP_HOLD", XEN_KEMARI_TAP_HOLD);
    NUM("XEN_KEMARI_TAP_PASS", XEN_KEMARI_TAP_PASS);
    NUM("XEN_KEMARI_LOST", XEN_KEMARI_LOST);
    NUM("XEN_KEMARI_SYNC_HARVEST", XEN_KEMARI_SYNC_HARVEST);
    NUM("XEN_KEMARI_RELEASE_OUT", XEN_KEMARI_RELEASE_OUT);
    NUM("XEN_KEMARI_RELEASE_UNPAUSE", XEN_KEMARI_RELEASE_UNPAUSE);
    NUM("XEN_KEMARI_STATE_MAX", XEN_KEMARI_STATE_MAX);
    NUM("XEN_KEMARI_HOT_MAX", XEN_KEMARI_HOT_MAX);
    NUM("XEN_KEMARI_WARM_MAX", XEN_KEMARI_WARM_MAX);
    NUM("XEN_KEMARI_NEAR", XEN_KEMARI_NEAR);
    NUM("XEN_KEMARI_MAGIC", XEN_KEMARI_MAGIC);
    NUM("XEN_KEMARI_MAX_PORTS", XEN_KEMARI_MAX_PORTS);
    NUM("XEN_KEMARI_TRIGGER_NONE", XEN_KEMARI_TRIGGER_NONE);
    NUM("XEN_KEMARI_TRIGGER_EVENT", XEN_KEMARI_TRIGGER_EVENT);
    NUM("XEN_KEMARI_TRIGGER_MARK", XEN_KEMARI_TRIGGER_MARK);
    NUM("XEN_KEMARI_TRIGGER_SYNC", XEN_KEMARI_TRIGGER_SYNC);
    NUM("XEN_KEMARI_TRIGGER_HELD", XEN_KEMARI_TRIGGER_HELD);
    NUM("XEN_KEMARI_DIRTY_P2M", XEN_KEMARI_DIRTY_P2M);
    NUM("XEN_KEMARI_DIRTY_GFN_MASK", XEN_KEMARI_DIRTY_GFN_MASK);
    NUM("XEN_KEMARI_ALWAYS_GFN_MASK", XEN_KEMARI_ALWAYS_GFN_MASK);
    NUM("XEN_KEMARI_ALWAYS_INDEX(~0ULL)", XEN_KEMARI_ALWAYS_INDEX(~0ULL));
    NUM("XEN_KEMARI_ALWAYS_INDEX(1ULL << 44)", XEN_KEMARI_ALWAYS_INDEX(1ULL << 44));
    NUM("XEN_KEMARI_ALWAYS_KIND(1ULL << 56)", XEN_KEMARI_ALWAYS_KIND(1ULL << 56));
    NUM("XEN_KEMARI_ALWAYS_SHINFO", XEN_KEMARI_ALWAYS_SHINFO);
    NUM("XEN_KEMARI_ALWAYS_GRANT", XEN_KEMARI_ALWAYS_GRANT);
    NUM("XEN_KEMARI_ALWAYS_FIFO", XEN_KEMARI_ALWAYS_FIFO);
    NUM("XEN_KEMARI_ALWAYS_VCPU", XEN_KEMARI_ALWAYS_VCPU);
    NUM("sizeof(struct xen_kemari_rec)", sizeof(struct xen_kemari_rec));
    NUM("sizeof(struct xen_kemari_domain)", sizeof(struct xen_kemari_domain));
    NUM("sizeof(struct xen_kemari_vcpu)", sizeof(struct xen_kemari_vcpu));
    NUM("sizeof(struct xen_kemari_evtchn)", sizeof(struct xen_kemari_evtchn));
    NUM("XEN_KEMARI_REC_END", XEN_KEMARI_REC_END);
    NUM("XEN_KEMARI_REC_DOMAIN", XEN_KEMARI_REC_DOMAIN);
    NUM("XEN_KEMARI_REC_FIFO", XEN_KEMARI_REC_FIFO);
    NUM("XEN_KEMARI_REC_VCPU", XEN_KEMARI_REC_VCPU);
    NUM("XEN_KEMARI_REC_EVTCHN", XEN_KEMARI_REC_EVTCHN);
    NUM("XEN_KEMARI_REC_HVM", XEN_KEMARI_REC_HVM);
    NUM("XEN_KEMARI_NO_ADDR", XEN_KEMARI_NO_ADDR);
    NUM("XEN_KEMARI_VCPU_UP", XEN_KEMARI_VCPU_UP);
    NUM("XEN_KEMARI_VCPU_NMI", XEN_KEMARI_VCPU_NMI);
    NUM("XEN_KEMARI_VCPU_SSHOT", XEN_KEMARI_VCPU_SSHOT);
    NUM("XEN_KEMARI_VCPU_RUN_PHYS", XEN_KEMARI_VCPU_RUN_PHYS);
    NUM("XEN_KEMARI_VCPU_TIME_PHYS", XEN_KEMARI_VCPU_TIME_PHYS);
    return 0;
}
