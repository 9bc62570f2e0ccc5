package receiver

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
)

// BenchmarkReceive posts events of 1.2 kB over 64 connections at a receiver on a real
// Postgres. The load shares the processors, so it does as little as it can.
func BenchmarkReceive(b *testing.B) {
	s := start(b, Options{Ledger: ledger.New(pgtest.Pool(b))})
	addr := strings.TrimPrefix(s.url, "http://")
	padding := strings.Repeat("x", 1150)
	var n atomic.Int64
	var group sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for range 64 {
		group.Go(func() {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				b.Error(err)
				return
			}
			defer conn.Close()
			in := bufio.NewReader(conn)
			var out bytes.Buffer
			for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
				body := fmt.Sprintf(`{"key":"d%d","at":1700000000,"email":"%s"}`, i, padding)
				out.Reset()
				fmt.Fprintf(&out, "POST /hooks/posts/thing HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", token, len(body), body)
				if _, err := conn.Write(out.Bytes()); err != nil {
					b.Error(err)
					return
				}
				if code, err := readAnswer(in); err != nil || code != http.StatusAccepted {
					b.Errorf("answered %d, %v", code, err)
					return
				}
			}
		})
	}
	group.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}

// readAnswer reads one answer and gives its status.
func readAnswer(in *bufio.Reader) (code int, err error) {
	length := 0
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if code == 0 {
			if code, err = strconv.Atoi(string(line[9:12])); err != nil {
				return 0, err
			}
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, err
			}
		}
		if len(line) == 2 {
			_, err = io.CopyN(io.Discard, in, int64(length))
			return code, err
		}
	}
}
