package hostnet

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// What a caller may want to tell apart. The errors returned wrap these, name the
// thing in question and say what to do.
var (
	ErrContainerName   = errors.New("not a container reference: use netns:NAME, netns:/path or pid:N")                    // usage
	ErrBadAddress      = errors.New("not an address for a container")                                                     // usage
	ErrBadOption       = errors.New("not a usable option")                                                                // usage
	ErrNoNamespace     = errors.New("no such network namespace")                                                          // not found
	ErrHostNamespace   = errors.New("that is the host's own network namespace")                                           // usage
	ErrAddressInUse    = errors.New("address in use")                                                                     // conflict; see AddressInUseError
	ErrInterfaceExists = errors.New("interface exists and is not ours")                                                   // conflict
	ErrNotBridge       = errors.New("a link of that name exists and is not a bridge")                                     // conflict
	ErrNoNftables      = errors.New("the kernel lacks nftables, or its NAT (modules nf_tables, nft_masq, nft_chain_nat)") // kernel feature
	ErrNoBridge        = errors.New("no such bridge")                                                                     // daemon not running
)

// AddressInUseError says which address of which interface stands in the way. It
// matches ErrAddressInUse.
type AddressInUseError struct {
	Want      netip.Prefix // the address asked for
	Have      netip.Prefix // the address that is there
	Interface string       // the interface that has it
	Container string
}

// Error names both addresses and the interface.
func (e *AddressInUseError) Error() string {
	what := "its network"
	if e.Want.Addr() == e.Have.Addr() {
		what = "it"
	}
	return fmt.Sprintf("%v in %s: interface %s already has %s as %v: use another address, or remove that one",
		e.Want, e.Container, e.Interface, what, e.Have)
}

// Is reports whether target is ErrAddressInUse.
func (e *AddressInUseError) Is(target error) bool { return target == ErrAddressInUse }

// hint adds to a kernel error what its reader can do about it.
func hint(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: run as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN", err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: the kernel lacks bridge or veth (modules bridge, veth)", err)
	}
	return err
}
