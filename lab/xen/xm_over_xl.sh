#!/bin/sh
# pvlab: xm (shim over xl)
#
# `xm` of Xen 3.1 in a dom0 that has no xend: its subcommands, tables, S-expressions, domain
# configurations and error messages, made of what `xl` of Xen 4 says. Not xend: xl's processes
# and libxl's logs are behind it. What it does not know, it refuses.
# Forms: tools/python/xen/xm/main.py and xend/server/DevController.py of Xen 3.1.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH

fail() { echo "Error: $*" >&2; exit 1; }

# xl COMMAND...: its output is passed on, its complaint becomes one of xend's.
# $domain and $device, if set, are what it may complain of.
call() {
  { said=$(xl "$@" 2>&1 >&3 3>&-); status=$?; } 3>&1
  case $said in
    # With exit status 0, if it was asked of a list of domains.
    *'invalid domain identifier'*|*'is an invalid domain'*|*'Domain not found'*)
      fail "Domain '$domain' does not exist." ;;
  esac
  [ "$status" != 0 ] || return 0
  case $said in
    *'already exists in xenstore'*)
      fail "Device $device (vbd) is already connected." ;;
    *'not connected'*)
      fail "Device $device not connected" ;;
    *'failed to stat'*|*'not a block device'*)
      fail "Device $device (vbd) could not be connected. $target does not exist." ;;
    *'is mounted in'*|*'already mounted'*)
      fail "Device $device (vbd) could not be connected. $(printf '%s\n' "$said" | grep -i -m 1 mounted)" ;;
    *hotplug*|*'/etc/xen/scripts/'*)
      fail "Device $device (vbd) could not be connected. Hotplug scripts not working." ;;
  esac
  # libxl's last line is its own; `libxl: error: file.c:1:function: ` says where.
  fail "$(printf '%s\n' "$said" | sed -n '/./{s/^libxl: [a-z]*: [^ ]*:[a-z_A-Z0-9]*: *//;p;}' | tail -n 1)"
}

# The number of a virtual device (xen-vbd-interface(7)): $device
number() {
  name=${1#/dev/}; name=${name%%:*}
  case $name in
    *[!0-9]*) ;;
    *) device=$name; return ;;
  esac
  letter=${name#???}; letter=${letter%%[0-9]*}
  case $name in hd*|sd*) letter=${name#??}; letter=${letter%%[0-9]*} ;; esac
  part=${name##*[a-z]}
  case $letter in [a-z]) at=$(($(printf '%d' "'$letter") - 97)) ;; *) at=0 ;; esac
  case $name in
    hd[ab]*) device=$((768 + 64 * at + ${part:-0})) ;;
    hd[cd]*) device=$((5632 + 64 * (at - 2) + ${part:-0})) ;;
    sd?*) device=$((2048 + 16 * at + ${part:-0})) ;;
    xvd?*) device=$((51712 + 16 * at + ${part:-0})) ;;
    *) fail "Invalid device: $1" ;;
  esac
}

# Shows one reason for a shutdown, c for a crash; xl's other letters are not known to xend.
# %-40s and the rest: xm_brief_list.
TABLE='
  NR == 1 { print "Name                                      ID   Mem VCPUs      State   Time(s)"; next }
  {
    name = $1
    for (i = 2; i <= NF - 5; i++) name = name " " $i
    state = $(NF - 1)
    if (substr(state, 5, 1) !~ /[c-]/) state = substr(state, 1, 4) "-" substr(state, 6)
    printf "%-40s %3d %5d %5d %10s %8.1f\n", name, $(NF - 4), $(NF - 3), $(NF - 2), state, $NF
  }'

# xl prints JSON one member a line, so that lines are all that has to be read. No `)` may be
# missing whatever is: xm_list --long of a domain that runs.
LONG='
  function text() { sub(/^[ \t]*"[^"]*": /, ""); sub(/,$/, ""); gsub(/^"|"$/, ""); return $0 }
  function word(value) { return value ~ /^[A-Za-z0-9_.:\/+-]+$/ ? value : "\"" value "\"" }
  function member(name, value) { if (value != "") printf "    (%s %s)\n", name, word(value) }
  function device() {
    if (path != "") devices = devices "    (device\n        (vbd\n            (backend 0)\n" \
      "            (dev " vdev ":disk)\n            (uname " kind ":" path ")\n" \
      "            (mode " mode ")\n        )\n    )\n"
    if (mac != "") devices = devices "    (device\n        (vif\n            (backend 0)\n" \
      "            (mac " mac ")\n            (bridge " bridge ")\n        )\n    )\n"
    path = mac = ""
  }
  /"domid":/ && id == "" { id = text() }
  /"name":/ && name == "" { name = text() }
  /"uuid":/ && uuid == "" { uuid = text() }
  /"type":/ && type == "" { type = text() }
  /"max_vcpus":/ { vcpus = text() }
  /"target_memkb":/ { memory = int(text() / 1024) }
  /"pae":/ { pae = text() == "True" }
  /"serial":/ { serial = text() }
  /"kernel":/ { kernel = text() }
  /"boot":/ { boot = text() }
  /"on_(poweroff|reboot|crash)":/ { match($0, /on_[a-z]+/); end[substr($0, RSTART, RLENGTH)] = text() }
  /"pdev_path":/ { device(); path = text(); kind = "phy"; mode = "r"; vdev = "" }
  /"vdev":/ { vdev = text() }
  /"backend":/ { kind = text() == "phy" ? "phy" : "file" }
  /"readwrite":/ { mode = text() == "1" ? "w" : "r" }
  /"mac":/ { device(); mac = text(); bridge = "xenbr0" }
  /"bridge":/ { bridge = text() }
  END {
    device()
    print "(domain"
    member("domid", id)
    for (what in end) member(what, end[what])
    member("uuid", uuid); member("vcpus", vcpus); member("memory", memory); member("name", name)
    printf "    (image\n        (%s\n", type == "hvm" ? "hvm" : "linux"
    if (type == "hvm") kernel = "/usr/lib/xen/boot/hvmloader"
    if (kernel != "") printf "            (kernel %s)\n", word(kernel)
    if (type == "hvm") printf "            (pae %d)\n", pae
    if (serial != "") printf "            (serial %s)\n", word(serial)
    if (boot != "") printf "            (boot %s)\n", word(boot)
    print "        )\n    )"
    member("state", state)
    printf "%s)\n", devices
  }'

# A configuration of xm is a Python program; those that only assign plain values are xl.cfg(5)
# but for how a guest is called HVM. Others are refused, in the line that is to blame.
CONFIG='
  function refuse() { print "line " NR ": not a plain value: " $0 > "/dev/stderr"; bad = 1; exit }
  function balance(line) { return gsub(/\[/, "[", line) - gsub(/\]/, "]", line) }
  { line = $0; sub(/^[ \t]+/, "", line); sub(/[ \t\r]+$/, "", line) }
  open > 0 { print line; open += balance(line); next }
  line == "" || line ~ /^#/ { next }
  line ~ /^(import|from) / || line ~ /^arch(_libdir)? *=/ { next }
  line !~ /^[A-Za-z_][A-Za-z0-9_]* *= */ { refuse() }
  {
    key = value = line
    sub(/ *=.*/, "", key); sub(/^[^=]*= */, "", value)
    if (value !~ /^([0-9]+|"[^"]*"|\047[^\047]*\047|\[.*)( *#.*)?$/) refuse()
    if (key == "device_model") next
    if (key == "builder") { print "type = \"" (value ~ /hvm/ ? "hvm" : "pv") "\""; next }
    if (key == "kernel" && value ~ /hvmloader/) next
    print line
    if (value ~ /^\[/) open = balance(value)
  }
  END { if (!bad && open > 0) { print "a list does not end" > "/dev/stderr"; bad = 1 } exit bad }'

create() {
  file= paused=
  while [ $# -gt 0 ]; do
    case $1 in
      -q|--quiet) ;;
      -p|--paused) paused=-p ;;
      -f|--defconfig) file=$2; shift ;;
      -*|*=*) fail "create: $1: not known to this shim" ;;
      *) file=$1 ;;
    esac
    shift
  done
  [ -n "$file" ] || fail "create: no configuration file"
  case $file in */*) ;; *) file=/etc/xen/$file ;; esac
  [ -r "$file" ] || fail "Unable to open config file: $file"
  made=/run/xm-${file##*/}
  said=$(awk "$CONFIG" "$file" 2>&1 >"$made") || fail "$file: $said"
  echo "Using config file \"$file\"."
  call create $paused "$made" >/dev/null
  echo "Started domain $(sed -n "s/^name *= *[\"']\([^\"']*\)[\"'].*/\1/p" "$made")"
}

list() {
  long=
  while [ $# -gt 0 ]; do
    case $1 in
      -l|--long) long=1 ;;
      -*) fail "list: $1: not known to this shim" ;;
      *) break ;;
    esac
    shift
  done
  domain=$1
  if [ -z "$long" ]; then
    table=$(call list "$@") || exit
    printf '%s\n' "$table" | awk "$TABLE"
    return
  fi
  [ $# = 1 ] || fail "list --long: one domain, in this shim"
  table=$(call list "$1") || exit
  state=$(printf '%s\n' "$table" | awk "$TABLE" | awk 'NR == 2 { print $(NF - 1) }')
  json=$(call list -l "$1") || exit
  printf '%s\n' "$json" | awk -v state="$state" "$LONG"
}

block_list() {
  domain=$1
  table=$(call block-list "$1") || exit
  printf '%s\n' "$table" | awk '
    NR == 1 { print "Vdev  BE handle state evt-ch ring-ref BE-path"; next }
    { printf "%-3d    %-3d  %-3d   %-3d    %-3d    %-5s %-30s\n", $1, $2, 0, $4, $5, $6, $7 }'
}

block_attach() {
  [ $# -ge 4 ] || fail "'xm block-attach' requires between 4 and 5 arguments!"
  domain=$1
  number "$3"
  kind=${2%%:*} target=${2#*:}
  case $2 in
    phy:/*|file:/*) ;;
    phy:*) target=/dev/$target ;;
    tap:aio:/*) kind=file target=${2#tap:aio:} ;;
    *) fail "Invalid backend: $2" ;;
  esac
  case $4 in
    r|ro) access=ro ;;
    w|rw) access=rw ;;
    'w!') access='w!' ;;
    *) fail "Invalid mode: $4" ;;
  esac
  backend=
  [ "$kind" != phy ] || backend=,backendtype=phy
  name=${3#/dev/}; type=
  case $name in *:cdrom) type=,devtype=cdrom ;; esac
  call block-attach "$1" "format=raw,vdev=${name%%:*},access=$access$type$backend,target=$target"
}

block_detach() {
  force=
  [ "$1" != -f ] || { force=-f; shift; }
  case $3 in -f|--force) force=-f ;; esac
  [ $# -ge 2 ] || fail "'xm block-detach' requires between 2 and 3 arguments!"
  domain=$1
  number "$2"
  call block-detach $force "$1" "$device"
}

dump_core() {
  live= crash=
  while [ $# -gt 0 ]; do
    case $1 in
      -L|--live) live=1 ;;
      -C|--crash) crash=1 ;;
      -*) fail "dump-core: $1: not known to this shim" ;;
      *) break ;;
    esac
    shift
  done
  domain=$1
  file=$2
  if [ -z "$file" ]; then
    mkdir -p /var/xen/dump
    file=/var/xen/dump/$(date +%Y-%m%d-%H%M.%S)-$(xl domname "$1" 2>/dev/null || echo "$1").core
  fi
  # xend stops the domain for it, unless told to let it live.
  [ -n "$live" ] || call pause "$1"
  said=$(call dump-core "$1" "$file" 2>&1)
  status=$?
  [ -n "$live" ] || xl unpause "$1" 2>/dev/null
  [ "$status" = 0 ] || { printf '%s\n' "$said" >&2; exit 1; }
  [ -z "$crash" ] || call destroy "$1"
}

migrate() {
  case $1 in -l|--live) shift ;; esac
  domain=$1
  case $2 in
    localhost|127.0.0.1) call migrate -s '' "$1" 'xl migrate-receive' ;;
    *) fail "migrate: only to localhost, in this shim" ;;
  esac
}

domain= device= target=
command=$1
[ $# = 0 ] || shift
case $command in
  create) create "$@" ;;
  list) list "$@" ;;
  block-list) block_list "$@" ;;
  block-attach) block_attach "$@" ;;
  block-detach) block_detach "$@" ;;
  dump-core) dump_core "$@" ;;
  migrate) migrate "$@" ;;
  info) call info; echo 'xend_config_format     : 4' ;;
  dmesg) call dmesg "$@" ;;
  save|restore|destroy|pause|unpause|shutdown|reboot|trigger|sysrq|rename|domid|domname|mem-set|\
  vcpu-set|vcpu-list)
    for domain in "$@"; do case $domain in -*) ;; *) break ;; esac; done
    call "$command" "$@" ;;
  version|--version) echo 'xm 3.1 (shim over xl)' ;;
  *) fail "Sub Command $command not found!" ;;
esac
