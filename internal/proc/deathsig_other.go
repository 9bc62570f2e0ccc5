//go:build !linux

package proc

import "syscall"

func dieWithParent(*syscall.SysProcAttr, syscall.Signal) {}
