package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// The same program plays the parts that are no partnersync: the variable says which.
const roleVariable = "PARTNERSYNC_BENCH_ROLE"

const (
	roleCRM     = "crm"
	roleBare    = "bare"
	rolePlain   = "plain"
	roleMinimal = "minimal"
)

// Further settings of a role.
const (
	configVariable   = "PARTNERSYNC_BENCH_CONFIG"
	databaseVariable = "PARTNERSYNC_BENCH_DATABASE_URL"
	crmVariable      = "PARTNERSYNC_BENCH_CRM_URL"
	halvesVariable   = "PARTNERSYNC_BENCH_HALVES" // of the plain program: receive, work, or both
)

func play(role string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var err error
	switch role {
	case roleCRM:
		err = serve(ctx, newCRM().handler())
	case roleBare:
		err = serve(ctx, http.HandlerFunc(bare))
	case rolePlain:
		err = playPlain(ctx)
	case roleMinimal:
		err = playMinimal(ctx)
	default:
		err = fmt.Errorf("there is no role %q", role)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: role %s: %v\n", role, err)
		return 1
	}
	return 0
}

// bare reads the body and stores nothing: what HTTP alone costs.
func bare(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		http.Error(w, "no body", http.StatusBadRequest)
		return
	}
	accept(w, "none")
}

func accept(w http.ResponseWriter, id string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(w, `{"id":"`+id+`","status":"stored"}`)
}

// serve answers on a free port of the loopback until ctx ends.
func serve(ctx context.Context, handler http.Handler) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	announce(l.Addr().String())
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err = server.Shutdown(drain)
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close()
	}
	<-failed
	return err
}

// announce says, as partnersync does, that the process runs and where it takes requests.
func announce(hooks string) {
	line, _ := json.Marshal(map[string]string{"msg": "bench runs", "hooks": hooks}) // strings only
	fmt.Fprintf(os.Stderr, "%s\n", line)
}
