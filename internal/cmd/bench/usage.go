package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// What Linux tells of processes below /proc; elsewhere the functions here return zero,
// which is printed as unknown.

// tick is the unit of processor times in /proc: 100 per second on every Linux.
const tick = 10 * time.Millisecond

// peakMemory returns the most memory that a process has had resident, in bytes.
func peakMemory(pid int) int64 {
	data, _ := os.ReadFile(procFile(pid, "status"))
	for line := range bytes.Lines(data) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(string(rest)), " kB"), 10, 64)
			return kib << 10
		}
	}
	return 0
}

// processorTime returns what a process has used of the processors.
func processorTime(pid int) time.Duration {
	own, _, _ := times(pid)
	return own
}

// processorTimeOfTree returns what a process, its children and its ended children have
// used, as a Postgres has a process per connection.
func processorTimeOfTree(root int) time.Duration {
	own, ended, _ := times(root)
	total := own + ended
	entries, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, e := range entries {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(e)))
		if err != nil {
			continue
		}
		if own, _, parent := times(pid); parent == root {
			total += own
		}
	}
	return total
}

func times(pid int) (own, ended time.Duration, parent int) {
	data, _ := os.ReadFile(procFile(pid, "stat"))
	// The name of the program comes second, in parentheses, and may hold anything.
	_, rest, ok := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 15 {
		return 0, 0, 0
	}
	number := func(i int) time.Duration {
		n, _ := strconv.ParseInt(fields[i], 10, 64)
		return time.Duration(n)
	}
	return (number(11) + number(12)) * tick, (number(13) + number(14)) * tick, int(number(1))
}

func procFile(pid int, file string) string { return "/proc/" + strconv.Itoa(pid) + "/" + file }

// loadAverage is that of the last minute, empty where it is unknown.
func loadAverage() string {
	data, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(data), " ")
	return first
}
