"""The pvlab stand-in: a Linux guest that answers like the Windows guest the lab drives.

The lab talks to a Windows Server 2003 guest over WinRM with a small set of commands. This
package serves that contract on a 32-bit PAE Linux guest, so that the lab can be built and
checked where no Windows image is at hand. It is not Windows and says so: ``ver``,
``systeminfo`` and ``wmic os`` name the stand-in, while formats, exit codes and error texts
follow Server 2003 (5.2.3790), since those are what the lab has to parse.

Standard library only, Python 3.11. The guest runs on a doubly emulated CPU, so modules stay
small, heavy imports are avoided and tools run inside the one long-lived server process.
"""

#: What the stand-in calls itself wherever a real tool would print the product name.
PRODUCT = "pvlab stand-in"

#: Version number of the system whose formats are followed (Server 2003 SP2).
VERSION = "5.2.3790"
