package localpg

import "syscall"

// dieWithParent has the kernel ask the child for a fast shutdown when the thread that
// started it ends, however that comes about.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGINT }
