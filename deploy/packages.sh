#!/usr/bin/env bash
# Installs the Debian packages behind the named groups of tools, where it may: packages.sh GROUP...
# Where it may not, it names what is missing and succeeds: what needs the tools skips, with the reason.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
for directory in /usr/lib/postgresql/*/bin; do PATH=$PATH:$directory; done # Debian keeps them out of the path

declare -A tools=(
  [native]="cc:gcc /usr/include/stdio.h:libc6-dev /usr/include/intel-ipsec-mb.h:libipsec-mb-dev"
  [lab]="ip:iproute2 nft:nftables ethtool:ethtool"
  [images]="wimlib-imagex:wimtools qemu-img:qemu-utils mke2fs:e2fsprogs xz:xz-utils zstd:zstd partclone.restore:partclone 7zz:7zip \
    genisoimage:genisoimage strace:strace sfdisk:fdisk sgdisk:gdisk"
  [disks]="sfdisk:fdisk setfattr:attr setfacl:acl setcap:libcap2-bin sgdisk:gdisk mkntfs:ntfs-3g mkfs.fat:dosfstools mcopy:mtools mkfs.xfs:xfsprogs losetup:mount grub-mkimage:grub-common \
    /usr/lib/grub/i386-pc:grub-pc-bin /usr/lib/grub/x86_64-efi:grub-efi-amd64-bin busybox:busybox-static pvs:lvm2 btrfs:btrfs-progs \
    cryptsetup:cryptsetup-bin"
  [boot]="mmdebstrap:mmdebstrap qemu-system-x86_64:qemu-system-x86 /usr/share/ovmf/OVMF.fd:ovmf"
  [database]="postgres:postgresql"
  [peers]="udp-sender:udpcast uftp:uftp"
)

missing=()
for group in "$@"; do
  if [ -z "${tools[$group]:-}" ]; then
    echo "packages.sh: there is no group $group, only ${!tools[*]}" >&2
    exit 2
  fi
  for entry in ${tools[$group]}; do
    tool=${entry%%:*}
    command -v "$tool" >/dev/null || [[ $tool == /* && -e $tool ]] || missing+=("${entry##*:}")
  done
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  install=(apt-get -o DPkg::Lock::Timeout=120 install -y -q --no-install-recommends "${missing[@]}")
  echo "Installing ${missing[*]}" >&2
  if "${install[@]}" >/dev/null 2>&1 </dev/null || { apt-get update -q >/dev/null 2>&1 && "${install[@]}" >/dev/null </dev/null; }; then
    exit 0
  fi
fi
echo "Missing: ${missing[*]} (as root: apt-get install ${missing[*]}). What needs them is left out." >&2
