// SPDX-License-Identifier: Apache-2.0

package xlstream

// The keys of libxl_domain_config, tools/libs/light/libxl_types.idl in Xen
// 4.20.  Every key of the structures that a PVH guest can have is decided, and
// a test holds this table against the IDL.

const (
	notPVH  = "not for a PVH guest"
	dm      = "a PVH guest has no device model"
	noClass = "this class of device cannot be protected"
	noNet   = "network devices (vif) cannot be protected yet"
	hostRes = "resources of the host cannot be given to a protected guest"
	noXSM   = "XSM labels are not carried to another host"
	runsIt  = "names a program which the other host would run as root"
)

var memKB = integer(0, 1<<42)

var domainConfig = map[string]rule{
	"c_info": fields(createInfo),
	"b_info": fields(buildInfo),

	"disks":      list(fields(diskFields), 64),
	"nics":       refuse(noNet),
	"pcidevs":    refuse(hostRes),
	"rdms":       refuse(hostRes),
	"dtdevs":     refuse(hostRes),
	"vfbs":       refuse(noClass),
	"vkbs":       refuse(noClass),
	"virtios":    refuse(noClass),
	"vtpms":      refuse(noClass),
	"p9s":        refuse(noClass),
	"pvcallsifs": refuse(noClass),
	"vdispls":    refuse(noClass),
	"vsnds":      refuse(noClass),
	"channels":   refuse(noClass),
	"usbctrls":   refuse(noClass),
	"usbdevs":    refuse(noClass),

	"on_poweroff":   shutdownAction,
	"on_reboot":     shutdownAction,
	"on_watchdog":   shutdownAction,
	"on_crash":      shutdownAction,
	"on_soft_reset": shutdownAction,
}

var shutdownAction = oneOf("destroy", "restart", "restart_rename", "preserve",
	"coredump_destroy", "coredump_restart", "soft_reset")

// nameChars keeps a name out of trouble as an argument of xl and as a part of
// the name of xl's log file.
var nameRule = match(`[A-Za-z0-9_][A-Za-z0-9_.+:@-]{0,62}`,
	"a domain name: at most 63 letters, digits and _ . + : @ -, not beginning with a sign")

var createInfo = map[string]rule{
	"type":                oneOf("pvh"),
	"hap":                 oneOf("True", "<default>"),
	"oos":                 defbool,
	"ssidref":             refuse(noXSM),
	"ssid_label":          refuse(noXSM),
	"name":                nameRule,
	"domid":               integer(0, 0xffff_ffff),
	"uuid":                match(`[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}`, "a UUID"),
	"xsdata":              refuse("writes to xenstore as the toolstack"),
	"platformdata":        refuse("writes to xenstore as the toolstack"),
	"poolid":              integer(0, 4095),
	"pool_name":           match(`[A-Za-z0-9_][A-Za-z0-9_. -]{0,62}`, "the name of a CPU pool"),
	"run_hotplug_scripts": defbool,
	"driver_domain":       refuseBool("a driver domain cannot be protected"),
	"passthrough":         oneOf("default", "disabled"),

	"xend_suspend_evtchn_compat": refuseBool("the suspend event channel is not used"),
}

var buildInfo = map[string]rule{
	"max_vcpus":          integer(1, 4096),
	"avail_vcpus":        bitmap,
	"cpumap":             bitmap,
	"nodemap":            bitmap,
	"vcpu_hard_affinity": list(bitmap, 4096),
	"vcpu_soft_affinity": list(bitmap, 4096),
	"numa_placement":     defbool,
	"tsc_mode":           oneOf("default", "always_emulate", "native"),
	"max_memkb":          memKB,
	"target_memkb":       memKB,
	"video_memkb":        memKB,
	"shadow_memkb":       memKB,
	"iommu_memkb":        memKB,
	"rtc_timeoffset":     integer(0, 0xffff_ffff),
	"exec_ssidref":       refuse(noXSM),
	"exec_ssid_label":    refuse(noXSM),
	"localtime":          defbool,
	"disable_migrate":    refuseBool("the guest was given features that bind it to its host"),
	"cpuid":              cpuidPolicy,
	"blkdev_start":       match(`[a-z]{1,8}`, "a disk name like xvda"),
	"vnuma_nodes":        refuse("virtual NUMA is not carried to another host"),

	"max_grant_frames":    integer(0, 65536),
	"max_maptrack_frames": integer(0, 1<<20),
	"max_grant_version":   integer(0, 1),

	"device_model_version":    oneOf("unknown", "qemu_xen"),
	"device_model_stubdomain": refuseBool(dm),
	"stubdomain_memkb":        refuse(dm),
	"stubdomain_kernel":       refuse(dm),
	"stubdomain_cmdline":      refuse(dm),
	"stubdomain_ramdisk":      refuse(dm),
	"device_model":            refuse(runsIt),
	"device_model_ssidref":    refuse(dm),
	"device_model_ssid_label": refuse(dm),
	"device_model_user":       refuse(dm),
	"dm_restrict":             refuseBool(dm),
	"extra":                   refuse(dm),
	"extra_pv":                refuse(dm),
	"extra_hvm":               refuse(dm),

	"sched_params": fields(schedParams),
	"ioports":      refuse(hostRes),
	"irqs":         refuse(hostRes),
	"iomem":        refuse(hostRes),
	"llc_colors":   refuse(hostRes),
	"claim_mode":   defbool,

	"event_channels": integer(0, 4095), // XEN_KEMARI_MAX_PORTS, less port 0
	// These three are used when the guest reboots; a restore reads none.
	"kernel":  hostPath,
	"ramdisk": hostPath,
	"cmdline": text(4096),

	"device_tree":         refuse(notPVH),
	"acpi":                defbool,
	"bootloader":          refuse(runsIt + "; boot by kernel= or a PVH boot loader image there"),
	"bootloader_args":     refuse(runsIt),
	"bootloader_restrict": defbool,
	"bootloader_user":     refuse(runsIt),
	"timer_mode": oneOf("unknown", "delay_for_missed_ticks", "no_delay_for_missed_ticks",
		"no_missed_ticks_pending", "one_missed_tick_pending"),
	"nested_hvm": refuseBool("nested virtualisation cannot be protected"),
	"apic":       defbool,
	"tee":        oneOf("none"),

	"type.hvm":     refuse("only PVH guests can be protected"),
	"type.pv":      refuse("only PVH guests can be protected"),
	"type.invalid": refuse("only PVH guests can be protected"),
	"type.pvh": fields(map[string]rule{
		"pvshim":         refuseBool("a PV guest in a PVH shim cannot be protected"),
		"pvshim_path":    refuse("a PV guest in a PVH shim cannot be protected"),
		"pvshim_cmdline": refuse("a PV guest in a PVH shim cannot be protected"),
		"pvshim_extra":   refuse("a PV guest in a PVH shim cannot be protected"),
	}),

	"arch_arm": fields(map[string]rule{
		"gic_version": oneOf("default"),
		"vuart":       oneOf("unknown"),
		"sve_vl":      oneOf("disabled"),
		"nr_spis":     refuse(notPVH),
	}),
	"arch_x86":       fields(map[string]rule{"msr_relaxed": defbool}),
	"altp2m":         oneOf("disabled"),
	"vmtrace_buf_kb": refuse("processor tracing cannot be protected"),
	"vpmu":           refuseBool("performance counters cannot be protected"),
}

var schedParam = integer(-1, 1<<31-1)

var schedParams = map[string]rule{
	"sched": oneOf("unknown", "sedf", "credit", "credit2", "arinc653", "rtds", "null"),

	"weight":    schedParam,
	"cap":       schedParam,
	"period":    schedParam,
	"budget":    schedParam,
	"extratime": schedParam,
	"slice":     schedParam,
	"latency":   schedParam,
}

var cpuidBits = match(`[01xks]{32}`, "32 of 0 1 x k s")

// cpuidPolicy is libxl_cpuid_policy_list as libxl_cpuid.c writes it.
var cpuidPolicy = fields(map[string]rule{
	"cpuid": list(fields(map[string]rule{
		"leaf":    integer(0, 0xffff_ffff),
		"subleaf": integer(0, 0xffff_ffff),
		"eax":     cpuidBits,
		"ebx":     cpuidBits,
		"ecx":     cpuidBits,
		"edx":     cpuidBits,
	}), 256),
	"msr": list(fields(map[string]rule{
		"index":  integer(0, 0xffff_ffff),
		"policy": match(`[01xks]{64}`, "64 of 0 1 x k s"),
	}), 256),
})

var diskFields = map[string]rule{
	"backend_domid":   refuse("a back end outside domain 0 cannot be protected"),
	"backend_domname": refuse("a back end outside domain 0 cannot be protected"),
	"pdev_path":       hostPath,
	"vdev":            match(`(xvd|sd|hd)[a-z]{1,2}[0-9]{0,3}`, "a disk name like xvda"),
	"backend":         oneOf("tap"),
	"format":          oneOf("raw"),
	"script":          oneOf("block-kemari", "/etc/xen/scripts/block-kemari"),
	"removable":       integer(0, 1),
	"readwrite":       integer(0, 1),
	"is_cdrom":        refuse("a CD-ROM cannot be protected"),
	"direct_io_safe":  boolean,
	"discard_enable":  defbool,
	"specification":   oneOf("unknown", "xen"),
	"transport":       oneOf("unknown"),
	"grant_usage":     oneOf("True", "<default>"),
	"irq":             refuse(noClass),
	"base":            refuse(noClass),
	"trusted":         defbool,

	"colo_enable":         refuseBool("COLO and Kemari exclude each other"),
	"colo_restore_enable": refuseBool("COLO and Kemari exclude each other"),
	"colo_host":           refuse("COLO and Kemari exclude each other"),
	"colo_port":           integer(-1, 0),
	"colo_export":         refuse("COLO and Kemari exclude each other"),
	"active_disk":         refuse("COLO and Kemari exclude each other"),
	"hidden_disk":         refuse("COLO and Kemari exclude each other"),
}
