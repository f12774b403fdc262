package daemon

import (
	"context"
	"net/netip"

	"weave/internal/api"
)

var errNotYet = api.Errorf(api.CodeUsage, "not in this build yet")

func (d *daemon) Expose(context.Context, api.ExposeRequest) (api.Addresses, error) {
	return api.Addresses{}, errNotYet
}
func (d *daemon) Hide(context.Context, api.HideRequest) (api.Addresses, error) {
	return api.Addresses{}, errNotYet
}
func (d *daemon) Prime(context.Context, api.PrimeRequest) error { return errNotYet }
func (d *daemon) RmPeer(context.Context, api.RmPeerRequest) (api.Removed, error) {
	return api.Removed{}, errNotYet
}
func (d *daemon) IPAM(context.Context) (api.IPAM, error)           { return api.IPAM{}, errNotYet }
func (d *daemon) DNS(context.Context) (api.DNS, error)             { return api.DNS{}, errNotYet }
func (d *daemon) AddName(context.Context, api.DNSRequest) error    { return errNotYet }
func (d *daemon) RemoveName(context.Context, api.DNSRequest) error { return errNotYet }
func (d *daemon) Lookup(context.Context, api.LookupRequest) (api.NameAddresses, error) {
	return api.NameAddresses{}, errNotYet
}

func given(as []api.Addr) (out []netip.Prefix, err error) {
	for _, a := range as {
		if a.IsNet() {
			return nil, errNotYet
		}
		out = append(out, a.Prefix())
	}
	return out, nil
}
