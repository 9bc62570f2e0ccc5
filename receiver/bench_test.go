package receiver

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
	"partnersync/internal/tracing"
)

// BenchmarkReceive posts events of 1.2 kB over 64 connections at a receiver on a real
// Postgres. The load shares the processors, so it does as little as it can.
func BenchmarkReceive(b *testing.B) {
	benchmarkReceive(b, Options{}, "")
}

// BenchmarkReceiveTraced does the same with and without the export of traces, to a
// collector that throws them away.
func BenchmarkReceiveTraced(b *testing.B) {
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	b.Cleanup(collector.Close)
	const parent = "traceparent: " + senderParent + "\r\n"
	for _, bb := range []struct {
		name   string
		sample float64 // below 0: off
		header string
	}{
		{"off", -1, ""},
		{"off, with a sender's trace", -1, parent},
		{"a tenth", 0.1, ""},
		{"all", 1, ""},
	} {
		b.Run(bb.name, func(b *testing.B) {
			o := Options{}
			if bb.sample >= 0 {
				var err error
				if o.Tracer, err = tracing.New(tracing.Options{Endpoint: collector.URL, Sample: bb.sample}); err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() {
					ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
					defer cancel()
					o.Tracer.Shutdown(ctx)
				})
			}
			benchmarkReceive(b, o, bb.header)
		})
	}
}

func benchmarkReceive(b *testing.B, o Options, header string) {
	o.Ledger = ledger.New(pgtest.Pool(b))
	s := start(b, o)
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
				fmt.Fprintf(&out, "POST /hooks/posts/thing HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n%s\r\n%s", token, len(body), header, body)
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
