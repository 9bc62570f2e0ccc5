package main

import "syscall"

// dieWithParent has the kernel end the child when this process is killed.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
