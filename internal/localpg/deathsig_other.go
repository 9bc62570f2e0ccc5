//go:build unix && !linux

package localpg

import "syscall"

// dieWithParent does nothing where the kernel has no such signal; watch stands in.
func dieWithParent(*syscall.SysProcAttr) {}
