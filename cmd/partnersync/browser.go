package main

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// ownPages refuses what a page of another site has a browser send here: a request that changes something.
func ownPages(next http.Handler) http.Handler { return http.NewCrossOriginProtection().Handler(next) }

// ownNames refuses requests under a name that is not of the listener, except where open allows them. A page of another site
// may have its name lead to this machine, and then reads what no token guards. No name leads to an address that is written as
// one, so those are taken.
func ownNames(listen string, open func(*http.Request) bool, next http.Handler) http.Handler {
	own, _, _ := net.SplitHostPort(listen)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !open(r) && !isOwn(r.Host, own) {
			http.Error(w, "this is not answered under the name that the request has for it: use its address", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isOwn(host, own string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	_, err := netip.ParseAddr(host)
	return err == nil || host == "" || strings.EqualFold(host, "localhost") || own != "" && strings.EqualFold(host, own)
}
